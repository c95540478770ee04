//! What a training leaves behind for people: `out.log`, TensorBoard events, `model.yml`, `eval_details.json`.
