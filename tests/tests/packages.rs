//! What is shipped besides the binary: the .deb, the systemd unit, the Dockerfile.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Seconds after `drain.deadline_ms` within which a node has ended, and more where its store is slow.
const STOP_S: u64 = 3;
const SLOW_STORE_S: u64 = 10;
/// Seconds that `docker stop` waits unless it is told otherwise.
const DOCKER_STOP_S: u64 = 10;

/// Runs a command to its end, which must be a good one, and gives what it said.
fn run(program: &str, words: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(words).current_dir(root()).env("TERN_DEB_COMPRESSION", "none");
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {said}");
    said
}

#[test]
fn the_deb_is_built_unpacked_and_its_program_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (out, unpacked) = (dir.path().join("out"), dir.path().join("root"));
    let binary = tern_tests::binary();
    run("deploy/deb/build", &[binary.to_str().unwrap(), out.to_str().unwrap()]);
    let deb = std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let deb = deb.to_str().unwrap();
    let control = run("dpkg-deb", &["-I", deb]);
    for line in ["Package: tern", "conffiles", "postinst"] {
        assert!(control.contains(line), "{line} in {control}");
    }
    assert_eq!(run("dpkg-deb", &["-I", deb, "conffiles"]), "/etc/tern/tern.toml\n");
    let files = run("dpkg-deb", &["-c", deb]);
    for (mode, file) in [
        ("-rwxr-xr-x root/root", "./usr/bin/tern"),
        ("-rw-r--r-- root/root", "./lib/systemd/system/tern.service"),
        ("-rw-r--r-- root/root", "./etc/tern/tern.toml"),
    ] {
        let line = files.lines().find(|line| line.ends_with(file));
        assert!(line.is_some_and(|line| line.starts_with(mode)), "{file} in {files}");
    }
    run("dpkg-deb", &["-x", deb, unpacked.to_str().unwrap()]);
    let program = unpacked.join("usr/bin/tern");
    let version = run(program.to_str().unwrap(), &["version"]);
    assert!(version.starts_with("tern ") && version.contains("commit"), "{version}");
    check_unit(&unpacked);
}

/// The unit has nothing that systemd does not know, and what it names is there.
fn check_unit(root: &Path) {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        // A machine without systemd cannot judge a unit; the text is checked below all the same.
        return;
    }
    // Where it is unpacked, its program is elsewhere.
    let text = std::fs::read_to_string(root.join("lib/systemd/system/tern.service")).unwrap();
    let unit = root.join("tern.service");
    let program = root.join("usr/bin/tern");
    std::fs::write(&unit, text.replace("/usr/bin/tern", program.to_str().unwrap())).unwrap();
    let verify = ["verify", "--man=no", "--generators=no"];
    let output = Command::new("systemd-analyze").args(verify).arg(&unit).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A container may have no targets to order it by.
    let about_it = |line: &&str| line.contains("tern.service") && !line.contains(".target not found");
    let complaints: Vec<&str> = said.lines().filter(about_it).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_unit_gives_the_drain_its_time_and_does_not_retry_a_wrong_configuration() {
    let unit = std::fs::read_to_string(root().join("deploy/systemd/tern.service")).unwrap();
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    let example = std::fs::read_to_string(root().join("deploy/tern.toml")).unwrap();
    let drain = example.lines().find_map(|line| line.strip_prefix("#deadline_ms = ")).unwrap();
    let drain_s = drain.parse::<u64>().unwrap() / 1000;
    let stop_s: u64 = value("TimeoutStopSec").trim_end_matches('s').parse().unwrap();
    assert!(stop_s >= drain_s + STOP_S + SLOW_STORE_S, "{stop_s} s to stop, {drain_s} s to drain");
    assert_eq!(value("Type"), "notify");
    assert_eq!(value("RestartPreventExitStatus"), "1");
    assert_eq!((value("ProtectSystem"), value("User")), ("strict".into(), "tern".into()));
}

#[test]
fn the_dockerfile_copies_what_is_there_and_runs_as_nobody_special() {
    let text = std::fs::read_to_string(root().join("deploy/docker/Dockerfile")).unwrap();
    let words = |start: &str| -> Vec<Vec<String>> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(start));
        lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    for copy in words("COPY ") {
        if !copy[0].starts_with("--from") {
            assert!(root().join(&copy[0]).exists(), "{copy:?}");
        }
    }
    assert_eq!(words("USER "), [["10001:10001"]]);
    assert_eq!(words("STOPSIGNAL "), [["SIGTERM"]]);
    // What is put in place of the comment of a key, which must be there once.
    let example = std::fs::read_to_string(root().join("deploy/tern.toml")).unwrap();
    let set = |key: &str| -> u64 {
        assert_eq!(
            example.lines().filter(|line| line.starts_with(&format!("#{key} = "))).count(),
            1,
            "{key}"
        );
        let value = text.split(&format!(".*/{key} = ")).nth(1).and_then(|rest| rest.split('/').next());
        value.unwrap_or_else(|| panic!("no {key}")).parse().unwrap()
    };
    let (deadline, spread) = (set("deadline_ms"), set("spread_ms"));
    assert!(deadline / 1000 + STOP_S < DOCKER_STOP_S, "docker kills after {DOCKER_STOP_S} s");
    assert!(spread + 2000 <= deadline, "the last client needs time to move");
    // The commands it runs are commands of the program.
    let help = run(tern_tests::binary().to_str().unwrap(), &["help"]);
    for command in ["ready", "serve"] {
        assert!(
            text.contains(&format!("\"{command}\"")) && help.contains(&format!("  {command} ")),
            "{command}"
        );
    }
}
