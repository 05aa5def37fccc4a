//! Histograms of the Manager's own metrics, as they are scraped.

use std::time::Duration;

use anyhow::Context;
use legation_api::client::Client;

/// How many observations were at or below each bound, cumulated, as Prometheus has it.
pub(super) struct Scraped(Vec<(f64, f64)>);

/// One value without labels.
pub(super) async fn value(client: &Client, name: &str) -> anyhow::Result<f64> {
    let text = client.metrics().await?;
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(found.with_context(|| format!("no metric {name}"))?.trim().parse()?)
}

impl Scraped {
    /// Reads one histogram without labels of its own.
    pub(super) async fn read(client: &Client, name: &str) -> anyhow::Result<Self> {
        Self::parse(&client.metrics().await?, name).with_context(|| format!("no histogram {name}"))
    }

    fn parse(text: &str, name: &str) -> Option<Self> {
        let prefix = format!("{name}_bucket{{le=\"");
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            Some((bound.replace("+Inf", "inf").parse().ok()?, count.trim().parse().ok()?))
        };
        let buckets: Vec<_> = text.lines().filter_map(bucket).collect();
        (!buckets.is_empty()).then_some(Self(buckets))
    }

    /// The quantile of what was observed since `before`, between two bounds in proportion; zero without observations.
    pub(super) fn quantile_since(&self, before: &Self, quantile: f64) -> Duration {
        let since = |(one, other): (&(f64, f64), &(f64, f64))| (one.0, one.1 - other.1);
        let counts: Vec<_> = self.0.iter().zip(&before.0).map(since).collect();
        let wanted = counts.last().map_or(0.0, |(_, count)| count * quantile);
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in counts {
            if count >= wanted && count > below {
                let part = (wanted - below) / (count - below);
                // Beyond the last bound nothing is known but that it is beyond.
                let high = if bound.is_finite() { bound } else { low };
                return Duration::from_secs_f64(low + (high - low) * part);
            }
            (low, below) = (bound, count);
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scraped(counts: [u32; 3]) -> Scraped {
        let [one, two, all] = counts;
        let text = format!(
            "# HELP took seconds\ntook_sum 1.0\ntook_bucket{{le=\"0.1\"}} {one}\ntook_bucket{{le=\"0.2\"}} {two}\n\
             took_bucket{{le=\"+Inf\"}} {all}\nother_bucket{{le=\"0.1\"}} 9\n"
        );
        Scraped::parse(&text, "took").expect("a histogram")
    }

    #[test]
    fn a_quantile_lies_in_its_bucket_and_counts_from_the_first_reading() {
        let (before, after) = (scraped([10, 10, 10]), scraped([10, 20, 20]));
        assert_eq!(after.quantile_since(&before, 0.5), Duration::from_millis(150));
        assert_eq!(after.quantile_since(&after, 0.5), Duration::ZERO);
        assert_eq!(scraped([0, 0, 4]).quantile_since(&scraped([0, 0, 0]), 0.5), Duration::from_millis(200));
    }
}
