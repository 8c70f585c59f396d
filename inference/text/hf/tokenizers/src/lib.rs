//! A small C ABI over Hugging Face `tokenizers`, linked statically into modelgate. See `tokenizers.h` beside the Go package.
//!
//! Who owns what:
//! - `mg_tokenizer` is owned by the caller of `mg_new`, who frees it once with `mg_free`, after every other call on it returned.
//! - An `mg_encoding` or `mg_buffer` that a call filled in is owned by the caller, who frees it once with `mg_encoding_free` or
//!   `mg_buffer_free`.
//! - Memory passed in (JSON, text) stays the caller's. It is read during the call only.
//!
//! Lengths are explicit everywhere: a NUL is a character like any other. Every entry catches panics and reports them as errors.

use std::any::Any;
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::sync::Once;

use encode::{mg_info, mg_options, mg_tokenizer, Failure};

mod encode;

/// What a call answers.
const OK: i32 = 0;
const FAILED: i32 = 1;
const INVALID_UTF8: i32 = 2;
const MAX_LENGTH_TOO_SMALL: i32 = 3;

static QUIET: Once = Once::new();

/// Bytes that the library allocated.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct mg_buffer {
    data: *mut u8,
    len: usize,
}

/// An encoded text: `len` ids, then `len` type ids, then `len` mask values in one allocation.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct mg_encoding {
    data: *mut u32,
    len: usize,
    truncated: bool,
}

fn panic_text(p: &(dyn Any + Send)) -> String {
    let said = p
        .downcast_ref::<&str>()
        .map(|s| (*s).to_string())
        .or_else(|| p.downcast_ref::<String>().cloned());
    format!(
        "the tokenizer library panicked: {}",
        said.unwrap_or_else(|| "no message".to_string())
    )
}

/// Runs `f`, turns a panic into a failure, and hands a failure's text to the caller.
///
/// # Safety
/// `error` is null or valid for a write.
unsafe fn guard<T>(
    error: *mut mg_buffer,
    f: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, i32> {
    let failure = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(v)) => return Ok(v),
        Ok(Err(e)) => e,
        Err(p) => Failure::Other(panic_text(p.as_ref())),
    };
    let (code, text) = match failure {
        Failure::Utf8 => (INVALID_UTF8, "the text is not valid UTF-8".to_string()),
        Failure::MaxLength(n) => (
            MAX_LENGTH_TOO_SMALL,
            format!("the maximum length is less than the {n} special tokens around every text"),
        ),
        Failure::Other(s) => (FAILED, s),
    };
    if !error.is_null() {
        error.write(buffer(text.into_bytes()));
    }
    Err(code)
}

fn buffer(v: Vec<u8>) -> mg_buffer {
    let len = v.len();
    mg_buffer {
        data: leak(v.into_boxed_slice()),
        len,
    }
}

/// The address of what the caller frees: null where there is nothing. A slice of nothing has an address too, a small number, and Go
/// ends the program when it finds one of those in the place of a pointer.
fn leak<T>(v: Box<[T]>) -> *mut T {
    if v.is_empty() {
        return std::ptr::null_mut();
    }
    Box::leak(v).as_mut_ptr()
}

/// # Safety
/// `data` is valid for reads of `len` bytes for `'a`, or `len` is 0.
unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if len == 0 || data.is_null() {
        return &[];
    }
    std::slice::from_raw_parts(data, len)
}

/// Reads a tokenizer from the text of a tokenizer.json. Null on failure, with the reason in `error`.
///
/// # Safety
/// `data` is valid for reads of `len` bytes; `error` is null or valid for a write.
#[no_mangle]
pub unsafe extern "C" fn mg_new(
    data: *const u8,
    len: usize,
    error: *mut mg_buffer,
) -> *mut mg_tokenizer {
    // Panics are reported to the caller; the default hook would print them to the terminal as well.
    QUIET.call_once(|| set_hook(Box::new(|_| {})));
    match guard(error, || mg_tokenizer::parse(bytes(data, len))) {
        Ok(t) => Box::into_raw(Box::new(t)),
        Err(_) => std::ptr::null_mut(),
    }
}

/// Frees a tokenizer. Null is allowed.
///
/// # Safety
/// `t` came from `mg_new`, was not freed, and no other call uses it.
#[no_mangle]
pub unsafe extern "C" fn mg_free(t: *mut mg_tokenizer) {
    if !t.is_null() {
        // A destructor that panics leaves the memory behind, which is all that can be done about it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(t))));
    }
}

/// What the file says of itself.
///
/// # Safety
/// `t` came from `mg_new` and was not freed.
#[no_mangle]
pub unsafe extern "C" fn mg_describe(t: *const mg_tokenizer) -> mg_info {
    (*t).info
}

/// The token of the file's padding block, if it has one.
///
/// # Safety
/// `t` came from `mg_new` and was not freed; `out` is valid for a write.
#[no_mangle]
pub unsafe extern "C" fn mg_pad_token(t: *const mg_tokenizer, out: *mut mg_buffer) -> bool {
    match &(*t).pad_token {
        Some(s) => {
            out.write(buffer(s.clone().into_bytes()));
            true
        }
        None => false,
    }
}

/// Encodes a text. 0 and an encoding in `out`, or another code and the reason in `error`.
///
/// # Safety
/// `t` came from `mg_new` and was not freed; `text` is valid for reads of `len` bytes; `out` and `error` are valid for a write.
#[no_mangle]
pub unsafe extern "C" fn mg_encode(
    t: *const mg_tokenizer,
    text: *const u8,
    len: usize,
    options: mg_options,
    out: *mut mg_encoding,
    error: *mut mg_buffer,
) -> i32 {
    let run = || {
        let text = std::str::from_utf8(bytes(text, len)).map_err(|_| Failure::Utf8)?;
        let (e, truncated) = (*t).encode(text, options)?;
        let mut v = Vec::with_capacity(3 * e.len());
        v.extend_from_slice(e.get_ids());
        v.extend_from_slice(e.get_type_ids());
        v.extend_from_slice(e.get_attention_mask());
        Ok((v.into_boxed_slice(), e.len(), truncated))
    };
    match guard(error, run) {
        Ok((v, len, _)) if v.len() != 3 * len => {
            let said = "the encoding's ids, type ids and mask differ in length";
            error.write(buffer(said.as_bytes().to_vec()));
            FAILED
        }
        Ok((v, len, truncated)) => {
            out.write(mg_encoding {
                data: leak(v),
                len,
                truncated,
            });
            OK
        }
        Err(code) => code,
    }
}

/// The id of a token, or -1.
///
/// # Safety
/// `t` came from `mg_new` and was not freed; `token` is valid for reads of `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn mg_token_id(t: *const mg_tokenizer, token: *const u8, len: usize) -> i64 {
    let find = || {
        let token = std::str::from_utf8(bytes(token, len)).map_err(|_| Failure::Utf8)?;
        Ok((*t).token_id(token))
    };
    match guard(std::ptr::null_mut(), find) {
        Ok(Some(id)) => id.into(),
        _ => -1,
    }
}

/// The token of an id, if there is one.
///
/// # Safety
/// `t` came from `mg_new` and was not freed; `out` is valid for a write.
#[no_mangle]
pub unsafe extern "C" fn mg_id_token(t: *const mg_tokenizer, id: u32, out: *mut mg_buffer) -> bool {
    match guard(std::ptr::null_mut(), || Ok((*t).id_token(id))) {
        Ok(Some(token)) => {
            out.write(buffer(token.into_bytes()));
            true
        }
        _ => false,
    }
}

/// Frees what a call put into a buffer.
///
/// # Safety
/// `b` was filled in by this library and was not freed, or its `data` is null.
#[no_mangle]
pub unsafe extern "C" fn mg_buffer_free(b: mg_buffer) {
    if !b.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(
            b.data, b.len,
        )));
    }
}

/// Frees what `mg_encode` put into an encoding.
///
/// # Safety
/// `e` was filled in by `mg_encode` and was not freed, or its `data` is null.
#[no_mangle]
pub unsafe extern "C" fn mg_encoding_free(e: mg_encoding) {
    if !e.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(
            e.data,
            3 * e.len,
        )));
    }
}

/// A hash of the sources that this library was built from. The Go side has the same files and compares, because its build
/// doesn't notice when the library changes.
#[no_mangle]
pub extern "C" fn mg_sources() -> u64 {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const MANIFEST: u64 = fnv(START, include_bytes!("../Cargo.toml"));
    const LOCK: u64 = fnv(MANIFEST, include_bytes!("../Cargo.lock"));
    const ENCODE: u64 = fnv(LOCK, include_bytes!("encode.rs"));
    fnv(ENCODE, include_bytes!("lib.rs"))
}

const fn fnv(mut h: u64, data: &[u8]) -> u64 {
    let mut i = 0;
    while i < data.len() {
        h = (h ^ data[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    h
}
