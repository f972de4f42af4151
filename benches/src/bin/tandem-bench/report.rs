//! Figures with their units, as a table for people and as JSON for programs.

use serde_json::{Map, Value, json};

use crate::process::load_average;

/// The result of one measurement.
pub struct Report {
    name: &'static str,
    load_before: f64,
    figures: Vec<(String, f64, &'static str)>,
}

impl Report {
    /// Begin it before the measurement: it notes how busy the machine is.
    pub fn new(name: &'static str) -> Self {
        Self { name, load_before: load_average(), figures: Vec::new() }
    }

    pub fn add(&mut self, figure: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push((figure.into(), value, unit));
    }

    /// To standard output: the table, then one line of JSON.
    pub fn print(&self) {
        let processors = std::thread::available_parallelism().map_or(0, |n| n.get());
        println!("{}: {processors} processors, load {:.1} before", self.name, self.load_before);
        let width = self.figures.iter().map(|(figure, ..)| figure.len()).max().unwrap_or(0);
        for (figure, value, unit) in &self.figures {
            println!("  {figure:width$}  {:>14} {unit}", number(*value));
        }
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|(figure, value, unit)| (format!("{figure} [{unit}]"), json!(value)))
            .collect();
        let line = json!({
            "measurement": self.name, "processors": processors, "load_before": self.load_before, "figures": figures
        });
        println!("{line}");
    }
}

/// With about four digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 || v == value.trunc().abs() => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The `share` quantile of times that were measured, 0.5 being the median; 0 of none.
pub fn quantile(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = (times.len() as f64 * share) as usize;
    times.get(at.min(times.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
