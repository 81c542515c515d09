//! A file of `torch.save`.
#![no_main]

use less_select::torch_file::{Node, TorchFile};
use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = TorchFile::open(&fuzz::file("x.pt", bytes)) else { return };
    look(file.root(), 0);
});

/// Looks at an object, and at what is in it. An object may hold itself.
fn look(node: Node<'_>, depth: usize) {
    let _ = (node.text(), node.integer(), node.truth(), node.number(), node.get("state"));
    if let Some(tensor) = node.tensor() {
        let values = tensor.to_f32().unwrap_or_else(|| vec![0.0; tensor.n_elements()]);
        assert_eq!(values.len(), tensor.n_elements());
    }
    if depth == 3 {
        return;
    }
    // A short pickle may hold one long list in itself many times.
    for (key, value) in node.entries().into_iter().flatten().take(32) {
        look(key, depth + 1);
        look(value, depth + 1);
    }
    for item in node.items().into_iter().flatten().take(32) {
        look(item, depth + 1);
    }
}
