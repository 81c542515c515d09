//! A file of settings.
#![no_main]

use less_select::config::layers::{self, Layer};
use less_select::config::{Config, Origin};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(raw) = layers::parse("mine.toml", text) else { return };
    let own = Layer { origin: Origin::Pipeline("mine.toml".to_owned()), raw };
    if let Ok(config) = Config::resolve(&[Layer::default_pipeline(), own]) {
        layers::parse("again", &config.to_toml()).expect("what it writes it reads");
        let _ = config.portable();
    }
});
