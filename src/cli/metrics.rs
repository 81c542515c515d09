//! `--metrics FILE`: the last run in Prometheus' text format, for the textfile
//! collector of its node exporter.

use std::fmt::Write;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::pipeline::manifest::Manifest;
use crate::run_dir::RunDir;
use crate::stage::Stage;

/// Writes how a command ended, and what the run then holds. Of a run without a
/// report there is less to say.
pub(super) fn write(path: &Path, run: &RunDir, exit_code: u8, seconds: f64) -> io::Result<()> {
    let mut metrics = Metrics { name: run.root().display().to_string(), text: String::new() };
    let now = jiff::Timestamp::now().as_second();
    metrics.gauge("exit_code", "How the last command ended", &[("", f64::from(exit_code))]);
    metrics.gauge("duration_seconds", "How long the last command took", &[("", seconds)]);
    metrics.gauge("end_timestamp_seconds", "When it ended", &[("", now as f64)]);
    if let Ok(manifest) = Manifest::read(run) {
        metrics.of_manifest(&manifest, run);
    }
    let report = fs_err::read(run.report_json()).ok();
    if let Some(report) = report.and_then(|json| serde_json::from_slice(&json).ok()) {
        metrics.of_report(&report);
    }
    crate::fs::write_atomic(path, |out| out.write_all(metrics.text.as_bytes()))
}

struct Metrics {
    /// The run, a label of every sample.
    name: String,
    text: String,
}

impl Metrics {
    /// A metric with a sample for each of `samples`: a label, such as
    /// `stage="score"`, and a value.
    fn gauge(&mut self, name: &str, help: &str, samples: &[(&str, f64)]) {
        let name = format!("less_select_{name}");
        let run = escaped(&self.name);
        let mut line = |text: String| self.text.push_str(&(text + "\n"));
        line(format!("# HELP {name} {help}."));
        line(format!("# TYPE {name} gauge"));
        for (label, value) in samples {
            let comma = if label.is_empty() { "" } else { "," };
            line(format!("{name}{{run=\"{run}\"{comma}{label}}} {value}"));
        }
    }

    fn of_manifest(&mut self, manifest: &Manifest, run: &RunDir) {
        let stages = manifest.stages.iter();
        let stages: Vec<(String, f64)> =
            stages.map(|(stage, record)| (label("stage", stage.name()), record.seconds)).collect();
        self.gauge(
            "stage_duration_seconds",
            "How long a stage took when it was last computed",
            &borrowed(&stages),
        );
        if let Some(gradients) = manifest.stages.get(&Stage::Gradients) {
            let files = gradients.outputs.keys().map(|name| run.root().join(name));
            let bytes: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
            self.gauge("gradient_bytes", "Size of the stored gradients", &[("", bytes as f64)]);
        }
    }

    fn of_report(&mut self, report: &Value) {
        let size = |name: &str| report["size"][name].as_f64().unwrap_or(f64::NAN);
        let rows = [
            (r#"rows="pool""#, size("n_pool")),
            (r#"rows="ranked""#, size("n_ranked")),
            (r#"rows="selected""#, size("n_selected")),
            (r#"rows="rejected""#, report["run"]["n_rejected"].as_f64().unwrap_or(f64::NAN)),
        ];
        self.gauge("rows", "Rows of the last complete run", &rows);
        let tokens = [
            (r#"tokens="pool""#, size("n_pool_tokens")),
            (r#"tokens="selected""#, size("n_selected_tokens")),
        ];
        self.gauge("tokens", "Tokens of the last complete run", &tokens);
        let quantiles = report["scores"]["quantiles"].as_array().into_iter().flatten();
        let quantiles: Vec<(String, f64)> = quantiles
            .filter_map(|quantile| {
                let share = quantile["share"].as_f64()?.to_string();
                Some((label("quantile", &share), quantile["score"].as_f64()?))
            })
            .collect();
        self.gauge("score", "Quantiles of the ranked rows' scores", &borrowed(&quantiles));
        let cut = report["scores"]["cut"].as_f64().unwrap_or(f64::NAN);
        self.gauge("score_cut", "The lowest selected score", &[("", cut)]);
    }
}

fn borrowed(samples: &[(String, f64)]) -> Vec<(&str, f64)> {
    samples.iter().map(|(label, value)| (label.as_str(), *value)).collect()
}

fn label(name: &str, value: &str) -> String {
    let mut label = String::new();
    write!(label, "{name}=\"{}\"", escaped(value)).expect("a string takes all");
    label
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
