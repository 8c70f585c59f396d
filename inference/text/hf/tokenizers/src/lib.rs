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
use std::sync::{Once, PoisonError, RwLock};

use tokenizers::{
    Encoding, PaddingDirection, PostProcessor, PostProcessorWrapper, Tokenizer, TruncationDirection,
};

/// What a call answers.
const OK: i32 = 0;
const FAILED: i32 = 1;
const INVALID_UTF8: i32 = 2;
const MAX_LENGTH_TOO_SMALL: i32 = 3;

static QUIET: Once = Once::new();

/// A loaded tokenizer. Safe for concurrent use.
#[allow(non_camel_case_types)]
pub struct mg_tokenizer {
    /// Splits text into ids. It has no post-processor, truncation or padding: those are done per call, so that calls with
    /// different limits share one instance. Taken for writing only when a call wants the other treatment of special tokens.
    inner: RwLock<Tokenizer>,
    /// Adds the special tokens of the model.
    post: Option<PostProcessorWrapper>,
    info: mg_info,
    pad_token: Option<String>,
}

/// What a tokenizer file says of itself.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[allow(non_camel_case_types)]
pub struct mg_info {
    /// Distinct tokens, added ones included.
    vocab_size: u64,
    /// The largest id of the vocabulary.
    max_id: u64,
    /// Special tokens that are put around a text.
    added: u64,
    /// The length in the file's truncation block, 0 without one.
    truncation_length: u64,
    has_truncation: bool,
    truncation_left: bool,
    has_padding: bool,
    padding_left: bool,
    pad_id: u32,
    pad_type_id: u32,
}

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

/// How to encode one text. `max_length` counts the special tokens; 0 means no limit.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct mg_options {
    max_length: usize,
    add_special: bool,
    special_as_text: bool,
    truncate_left: bool,
}

enum Failure {
    Utf8,
    MaxLength(usize),
    Other(String),
}

impl From<tokenizers::Error> for Failure {
    fn from(e: tokenizers::Error) -> Self {
        Failure::Other(e.to_string())
    }
}

impl mg_tokenizer {
    fn parse(json: &[u8]) -> Result<Self, Failure> {
        let mut t = Tokenizer::from_bytes(json)?;
        let post = t.get_post_processor().cloned();
        let (info, pad_token) = describe(&t, post.as_ref());
        t.with_post_processor(None::<PostProcessorWrapper>);
        t.with_truncation(None)?;
        t.with_padding(None);
        t.set_encode_special_tokens(false);
        Ok(mg_tokenizer {
            inner: RwLock::new(t),
            post,
            info,
            pad_token,
        })
    }

    /// Gives text to the library with special tokens in it read as tokens or as text. The library keeps that choice in the
    /// tokenizer. A call that wants the other one turns it and encodes under the write lock, so that it can't be turned back
    /// before the call is done. A process makes one choice, so in practice all calls run beside each other.
    fn split(&self, text: &str, special_as_text: bool) -> Result<Encoding, Failure> {
        {
            let t = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            if t.get_encode_special_tokens() == special_as_text {
                return Ok(t.encode_fast(text, false)?);
            }
        }
        let mut t = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        t.set_encode_special_tokens(special_as_text);
        Ok(t.encode_fast(text, false)?)
    }

    /// Encodes as the Python library does with `truncation=True, max_length=...`: the text is cut to what the special tokens
    /// leave, then they are added.
    fn encode(&self, text: &str, o: mg_options) -> Result<(Encoding, bool), Failure> {
        let added = if o.add_special {
            self.info.added as usize
        } else {
            0
        };
        if o.max_length != 0 && o.max_length < added {
            return Err(Failure::MaxLength(added));
        }
        let mut e = self.split(text, o.special_as_text)?;
        let truncated = o.max_length != 0 && e.len() > o.max_length - added;
        if truncated {
            let side = if o.truncate_left {
                TruncationDirection::Left
            } else {
                TruncationDirection::Right
            };
            e.truncate(o.max_length - added, 0, side);
            // The parts that were cut off aren't wanted, so they need no special tokens either.
            drop(e.take_overflowing());
        }
        if let Some(p) = &self.post {
            e = p.process(e, None, o.add_special)?;
        }
        Ok((e, truncated))
    }
}

fn describe(t: &Tokenizer, post: Option<&PostProcessorWrapper>) -> (mg_info, Option<String>) {
    let vocab = t.get_vocab(true);
    let mut info = mg_info {
        vocab_size: vocab.len() as u64,
        max_id: vocab.values().copied().max().unwrap_or(0).into(),
        added: post.map_or(0, |p| p.added_tokens(false)) as u64,
        ..Default::default()
    };
    if let Some(p) = t.get_truncation() {
        info.has_truncation = true;
        info.truncation_length = p.max_length as u64;
        info.truncation_left = p.direction == TruncationDirection::Left;
    }
    let mut pad_token = None;
    if let Some(p) = t.get_padding() {
        info.has_padding = true;
        info.padding_left = matches!(p.direction, PaddingDirection::Left);
        info.pad_id = p.pad_id;
        info.pad_type_id = p.pad_type_id;
        pad_token = Some(p.pad_token.clone());
    }
    (info, pad_token)
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
    let b = Box::leak(v.into_boxed_slice());
    mg_buffer {
        data: b.as_mut_ptr(),
        len: b.len(),
    }
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
                data: Box::leak(v).as_mut_ptr(),
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
        let t = (*t).inner.read().unwrap_or_else(PoisonError::into_inner);
        Ok(t.token_to_id(token))
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
    let find = || {
        let t = (*t).inner.read().unwrap_or_else(PoisonError::into_inner);
        Ok(t.id_to_token(id))
    };
    match guard(std::ptr::null_mut(), find) {
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
    const H: u64 = fnv(
        fnv(
            fnv(0xcbf2_9ce4_8422_2325, include_bytes!("../Cargo.toml")),
            include_bytes!("../Cargo.lock"),
        ),
        include_bytes!("lib.rs"),
    );
    H
}

const fn fnv(mut h: u64, data: &[u8]) -> u64 {
    let mut i = 0;
    while i < data.len() {
        h = (h ^ data[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    h
}
