//! Decoding, transforming and drawing images; no torch.
