//! Registers the addon with Node.

fn main() {
    napi_build::setup();
}
