//! Compiles the C++ file that stops llama.cpp's exceptions; see src/engine/guard.rs. Without the engine: nothing.

fn main() {
    println!("cargo:rerun-if-changed=src/engine/build.rs");
    #[cfg(feature = "engine")]
    {
        println!("cargo:rerun-if-changed=src/engine/guard.cpp");
        cc::Build::new().cpp(true).std("c++17").file("src/engine/guard.cpp").compile("tiller_guard");
    }
}
