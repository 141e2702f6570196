//! What one more session costs: the slope of a straight line through measurements. Pure.

/// Bytes per session by least squares over (sessions, bytes); `None` for fewer than two different
/// numbers of sessions.
pub(super) fn bytes_per_session(points: &[(usize, u64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / count;
    let x_mean = mean(&mut points.iter().map(|(sessions, _)| *sessions as f64));
    let y_mean = mean(&mut points.iter().map(|(_, bytes)| *bytes as f64));
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (sessions, bytes) in points {
        let x = *sessions as f64 - x_mean;
        covariance += x * (*bytes as f64 - y_mean);
        variance += x * x;
    }
    (variance > 0.0).then(|| covariance / variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_part_does_not_count() {
        let points = [(1_000, 50_000_000 + 1_000 * 20), (3_000, 50_060_000), (6_000, 50_120_000)];
        assert!((bytes_per_session(&points).unwrap() - 20.0).abs() < 1e-6);
    }

    #[test]
    fn scatter_is_evened_out() {
        let slope = bytes_per_session(&[(0, 10), (1, 0), (2, 30), (3, 20)]).unwrap();
        assert!((slope - 6.0).abs() < 1e-9, "{slope}");
    }

    #[test]
    fn one_point_has_no_slope() {
        assert_eq!(bytes_per_session(&[]), None);
        assert_eq!(bytes_per_session(&[(5, 1), (5, 2)]), None);
    }
}
