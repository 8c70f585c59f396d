//! What the calls do: reading a tokenizer and encoding with it.

use std::sync::{PoisonError, RwLock};

use tokenizers::{
    Encoding, PaddingDirection, PostProcessor, PostProcessorWrapper, Tokenizer, TruncationDirection,
};

/// A loaded tokenizer. Safe for concurrent use.
#[allow(non_camel_case_types)]
pub struct mg_tokenizer {
    /// Splits text into ids. It has no post-processor, truncation or padding: those are done per call, so that calls with
    /// different limits share one instance. Taken for writing only when a call wants the other treatment of special tokens.
    inner: RwLock<Tokenizer>,
    /// Adds the special tokens of the model.
    post: Option<PostProcessorWrapper>,
    pub info: mg_info,
    /// The token of the file's padding block.
    pub pad_token: Option<String>,
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

/// Why a call failed.
pub enum Failure {
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
    /// Reads the text of a tokenizer.json.
    pub fn parse(json: &[u8]) -> Result<Self, Failure> {
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

    /// The id of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        let t = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        t.token_to_id(token)
    }

    /// The token of an id.
    pub fn id_token(&self, id: u32) -> Option<String> {
        let t = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        t.id_to_token(id)
    }

    /// Encodes as the Python library does with `truncation=True, max_length=...`: the text is cut to what the special tokens
    /// leave, then they are added.
    pub fn encode(&self, text: &str, o: mg_options) -> Result<(Encoding, bool), Failure> {
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

/// What a tokenizer says of itself, before its truncation and padding are taken out.
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
