use serde_json::Value;

use super::*;

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    let (_, Document(text)) = routes(true, false).finish();
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let mut names: Vec<&str> =
        operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "programs are generated from these names");
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(value: &serde_json::Value, into: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().filter(|_| key == "$ref") {
                    Some(reference) => into.push(reference.to_owned()),
                    None => collect(value, into),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, into)),
        _ => {}
    }
}

#[test]
fn the_description_has_every_kind_of_body() {
    let (_, Document(text)) = routes(true, false).finish();
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let body = &document["components"]["schemas"]["EntryBody"];
    let parts = body["oneOf"].as_array().unwrap();
    let kinds: Vec<_> =
        parts.iter().map(|part| part["properties"]["kind"]["enum"][0].as_str().unwrap()).collect();
    let known = tern_protocol::EntryBody::KINDS.iter().map(|kind| kind.1);
    assert_eq!(kinds, known.chain(["opaque"]).collect::<Vec<_>>());
    // What has no value is left out, not null.
    let message = &parts[0]["properties"];
    assert_eq!((&message["data"]["oneOf"], &message["reply_to"]["type"]), (&Value::Null, &"integer".into()));
}
