//! Archives, arrays and pickles, written byte by byte, right or wrong.

use std::io::Write;

/// A file of an archive. What is `None` is as it should be.
#[derive(Clone, Default)]
pub(crate) struct Part {
    pub(crate) name: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) deflated: bool,
    pub(crate) method: Option<u16>,
    pub(crate) flags: u16,
    pub(crate) crc: Option<u32>,
    pub(crate) size: Option<u32>,
    pub(crate) packed: Option<u32>,
    pub(crate) offset: Option<u32>,
    pub(crate) local_name: Option<Vec<u8>>,
    pub(crate) local_method: Option<u16>,
    /// An extra field of the directory.
    pub(crate) extra: Vec<u8>,
}

pub(crate) fn part(name: &str, data: impl Into<Vec<u8>>) -> Part {
    Part { name: name.as_bytes().to_vec(), data: data.into(), ..Part::default() }
}

pub(crate) fn deflate(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

fn le(out: &mut Vec<u8>, widths_and_values: &[(usize, u64)]) {
    for &(width, value) in widths_and_values {
        out.extend_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// What the end of an archive says. What is `None` is as it should be.
#[derive(Clone, Default)]
pub(crate) struct End {
    pub(crate) n: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) offset: Option<u64>,
    pub(crate) disk: u64,
    /// With 64-bit numbers, as torch writes it.
    pub(crate) wide: bool,
    pub(crate) comment: Vec<u8>,
}

/// An archive of `parts`.
pub(crate) fn archive(parts: &[Part]) -> Vec<u8> {
    archive_with(parts, &End::default())
}

/// An archive whose end says what `end` says.
pub(crate) fn archive_with(parts: &[Part], end: &End) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for part in parts {
        let packed = if part.deflated { deflate(&part.data) } else { part.data.clone() };
        let method = u64::from(part.method.unwrap_or(if part.deflated { 8 } else { 0 }));
        let mut crc = flate2::Crc::new();
        crc.update(&part.data);
        let crc = u64::from(part.crc.unwrap_or(crc.sum()));
        let sizes =
            [part.packed.unwrap_or(packed.len() as u32), part.size.unwrap_or(part.data.len() as u32)].map(u64::from);
        let offset = part.offset.map_or(out.len() as u64, u64::from);
        let local_name = part.local_name.as_ref().unwrap_or(&part.name);
        let local_method = part.local_method.map_or(method, u64::from);
        out.extend_from_slice(b"PK\x03\x04");
        le(
            &mut out,
            &[(2, 20), (2, part.flags.into()), (2, local_method), (4, 0), (4, crc), (4, sizes[0]), (4, sizes[1])],
        );
        le(&mut out, &[(2, local_name.len() as u64), (2, 0)]);
        out.extend_from_slice(local_name);
        out.extend_from_slice(&packed);
        directory.extend_from_slice(b"PK\x01\x02");
        le(&mut directory, &[(2, 20), (2, 20), (2, part.flags.into()), (2, method), (4, 0), (4, crc)]);
        le(&mut directory, &[(4, sizes[0]), (4, sizes[1]), (2, part.name.len() as u64), (2, part.extra.len() as u64)]);
        le(&mut directory, &[(2, 0), (2, 0), (2, 0), (4, 0), (4, offset)]);
        directory.extend_from_slice(&part.name);
        directory.extend_from_slice(&part.extra);
    }
    let (n, bytes) = (end.n.unwrap_or(parts.len() as u64), end.bytes.unwrap_or(directory.len() as u64));
    let offset = end.offset.unwrap_or(out.len() as u64);
    out.extend(directory);
    if end.wide {
        let at = out.len() as u64;
        out.extend_from_slice(b"PK\x06\x06");
        le(
            &mut out,
            &[(8, 44), (2, 45), (2, 45), (4, end.disk), (4, end.disk), (8, n), (8, n), (8, bytes), (8, offset)],
        );
        out.extend_from_slice(b"PK\x06\x07");
        le(&mut out, &[(4, 0), (8, at), (4, 1)]);
        out.extend_from_slice(b"PK\x05\x06");
        le(&mut out, &[(2, 0xffff), (2, 0xffff), (2, 0xffff), (2, 0xffff), (4, 0xffff_ffff), (4, 0xffff_ffff)]);
    } else {
        out.extend_from_slice(b"PK\x05\x06");
        le(&mut out, &[(2, end.disk), (2, end.disk), (2, n), (2, n), (4, bytes), (4, offset)]);
    }
    le(&mut out, &[(2, end.comment.len() as u64)]);
    out.extend_from_slice(&end.comment);
    out
}

/// An array with this header and these elements.
pub(crate) fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    le(&mut out, &[(2, header.len() as u64)]);
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out
}

/// A header with this type and shape.
pub(crate) fn npy_header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
}

/// A file of torch whose pickle is `pickle`, with one storage, "0", of 24 bytes.
pub(crate) fn torch(pickle: &[u8]) -> Vec<u8> {
    let storage: Vec<u8> = (0..6).flat_map(|v| (v as f32).to_le_bytes()).collect();
    archive_with(
        &[
            part("a/data.pkl", pickle),
            part("a/byteorder", "little"),
            part("a/data/0", storage),
            part("a/version", "3\n"),
        ],
        &End { wide: true, ..End::default() },
    )
}

/// Pieces of pickles.
pub(crate) mod pickle {
    /// A program of protocol 2.
    pub(crate) fn program(pieces: &[&[u8]]) -> Vec<u8> {
        [&b"\x80\x02"[..], &pieces.concat(), b"."].concat()
    }

    pub(crate) fn global(module: &str, name: &str) -> Vec<u8> {
        format!("c{module}\n{name}\n").into_bytes()
    }

    pub(crate) fn text(text: &str) -> Vec<u8> {
        [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
    }

    pub(crate) fn int(v: i64) -> Vec<u8> {
        [&b"\x8a\x08"[..], &v.to_le_bytes()].concat()
    }

    pub(crate) fn tuple(items: &[&[u8]]) -> Vec<u8> {
        [&b"("[..], &items.concat(), b"t"].concat()
    }

    pub(crate) fn ints(items: &[i64]) -> Vec<u8> {
        let items: Vec<_> = items.iter().map(|&v| int(v)).collect();
        tuple(&items.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    pub(crate) fn call(function: &[u8], arguments: &[&[u8]]) -> Vec<u8> {
        [function, &tuple(arguments), b"R"].concat()
    }

    pub(crate) fn dict(items: &[(&str, &[u8])]) -> Vec<u8> {
        let items: Vec<_> = items.iter().map(|(key, value)| [&text(key), *value].concat()).collect();
        [&b"}("[..], &items.concat(), b"u"].concat()
    }

    /// A storage of torch's class `class`.
    pub(crate) fn storage(class: &str, key: &str, len: i64) -> Vec<u8> {
        let parts = [text("storage"), global("torch", class), text(key), text("cpu"), int(len)];
        [tuple(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()), b"Q".to_vec()].concat()
    }

    pub(crate) fn ordered_dict() -> Vec<u8> {
        [&*global("collections", "OrderedDict"), b")R"].concat()
    }

    /// A tensor of a storage; its offset, shape and strides.
    pub(crate) fn tensor(storage: &[u8], offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
        let arguments: [&[u8]; 6] = [storage, &int(offset), &ints(shape), &ints(strides), b"\x89", &ordered_dict()];
        call(&global("torch._utils", "_rebuild_tensor_v2"), &arguments)
    }
}
