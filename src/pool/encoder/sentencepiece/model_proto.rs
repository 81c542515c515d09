//! The protocol buffer that SentencePiece keeps a model in: the fields of
//! `sentencepiece_model.proto` that tokens depend on.

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Stands for a token of its own in the text (`<s>`); never found in it.
    Control,
    /// Found in the text before anything else.
    UserDefined,
    /// All others.
    Text,
}

/// An entry of the vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    /// Its log probability, or the order in which it was merged.
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// How a text is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
    /// Words or characters.
    Other,
}

/// A model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelProto {
    pub(super) pieces: Vec<Piece>,
    pub(super) algorithm: Algorithm,
    /// Whether what is in no piece becomes bytes.
    pub(super) byte_fallback: bool,
    pub(super) unk_id: i32,
    pub(super) unk_piece: String,
    /// `None` where the model has none.
    pub(super) bos_piece: Option<String>,
    pub(super) eos_piece: Option<String>,
    /// The rules of normalization, compiled; empty where there are none.
    pub(super) charsmap: Vec<u8>,
}

/// Why bytes are no model.
#[derive(Debug, thiserror::Error)]
pub enum ProtoError {
    /// It ends within a field.
    #[error("it ends within a field")]
    Truncated,

    /// No field begins like this.
    #[error("no field of a protocol buffer begins at byte {0}")]
    Field(usize),

    /// A piece is no text.
    #[error("piece {0} is not UTF-8")]
    Text(usize),

    /// A piece is longer than any that is trained.
    #[error("piece {piece} is longer than {max_bytes} bytes")]
    TooLong {
        /// Position from 0.
        piece: usize,
        /// The longest that is read.
        max_bytes: usize,
    },

    /// It has no piece.
    #[error("it has no pieces")]
    Empty,
}

/// Longest piece: the search for merges takes time with its square. Trainers cut
/// at 16 characters unless they are told otherwise.
const MAX_PIECE_BYTES: usize = 512;

impl ModelProto {
    /// Reads a whole file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ProtoError> {
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            unk_id: 0,
            unk_piece: "<unk>".to_owned(),
            bos_piece: None,
            eos_piece: None,
            charsmap: Vec::new(),
        };
        // The defaults of the format.
        let (mut bos, mut eos) = ((1, "<s>".to_owned()), (2, "</s>".to_owned()));
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(piece)) => {
                    let piece = Piece::parse(piece, model.pieces.len())?;
                    model.pieces.push(piece);
                }
                (2, Value::Bytes(trainer)) => model.read_trainer(trainer, &mut bos, &mut eos)?,
                (3, Value::Bytes(normalizer)) => model.read_normalizer(normalizer)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(ProtoError::Empty);
        }
        let of_model = |(id, piece): (i32, String)| (id >= 0).then_some(piece);
        model.bos_piece = of_model(bos);
        model.eos_piece = of_model(eos);
        Ok(model)
    }

    fn read_trainer(
        &mut self,
        bytes: &[u8],
        bos: &mut (i32, String),
        eos: &mut (i32, String),
    ) -> Result<(), ProtoError> {
        for field in Fields::of(bytes) {
            match field? {
                (3, Value::Number(1)) => self.algorithm = Algorithm::Unigram,
                (3, Value::Number(2)) => self.algorithm = Algorithm::Bpe,
                (3, Value::Number(_)) => self.algorithm = Algorithm::Other,
                (35, Value::Number(flag)) => self.byte_fallback = flag != 0,
                (40, Value::Number(id)) => self.unk_id = id as i32,
                (41, Value::Number(id)) => bos.0 = id as i32,
                (42, Value::Number(id)) => eos.0 = id as i32,
                (45, Value::Bytes(text)) => self.unk_piece = lossy(text),
                (46, Value::Bytes(text)) => bos.1 = lossy(text),
                (47, Value::Bytes(text)) => eos.1 = lossy(text),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, bytes: &[u8]) -> Result<(), ProtoError> {
        for field in Fields::of(bytes) {
            if let (2, Value::Bytes(charsmap)) = field? {
                self.charsmap = charsmap.to_vec();
            }
        }
        Ok(())
    }
}

impl Piece {
    /// A piece of text, number `position` of them.
    pub(super) fn new(text: &[u8], position: usize) -> Result<Self, ProtoError> {
        if text.len() > MAX_PIECE_BYTES {
            let max_bytes = MAX_PIECE_BYTES;
            return Err(ProtoError::TooLong { piece: position, max_bytes });
        }
        let text = std::str::from_utf8(text).map_err(|_| ProtoError::Text(position))?;
        Ok(Self { text: text.to_owned(), score: 0.0, kind: PieceKind::Text })
    }

    fn parse(bytes: &[u8], position: usize) -> Result<Self, ProtoError> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: PieceKind::Text };
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(text)) => piece.text = Self::new(text, position)?.text,
                (2, Value::Four(bits)) => piece.score = f32::from_le_bytes(bits),
                (3, Value::Number(3)) => piece.kind = PieceKind::Control,
                (3, Value::Number(4)) => piece.kind = PieceKind::UserDefined,
                (3, Value::Number(_)) => piece.kind = PieceKind::Text,
                _ => {}
            }
        }
        Ok(piece)
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// What stands in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Four([u8; 4]),
    Eight,
    Bytes(&'a [u8]),
}

/// The fields of a message: number and value, in order. Ends behind the first
/// error.
struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn take(&mut self, n_bytes: usize) -> Result<&'a [u8], ProtoError> {
        let end = self.position.checked_add(n_bytes).ok_or(ProtoError::Truncated)?;
        let taken = self.bytes.get(self.position..end).ok_or(ProtoError::Truncated)?;
        self.position = end;
        Ok(taken)
    }

    /// A number in groups of seven bits, the lowest first.
    fn varint(&mut self) -> Result<u64, ProtoError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ProtoError::Field(self.position))
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), ProtoError> {
        let start = self.position;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Eight)?,
            2 => {
                let n_bytes = usize::try_from(self.varint()?).map_err(|_| ProtoError::Truncated)?;
                Value::Bytes(self.take(n_bytes)?)
            }
            5 => Value::Four(self.take(4)?.try_into().expect("four were taken")),
            _ => return Err(ProtoError::Field(start)),
        };
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), ProtoError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.position = self.bytes.len();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    #[test]
    fn pieces_and_settings_are_read_and_the_rest_is_passed_over() {
        let score = [&[2 << 3 | 5][..], &(-1.5_f32).to_le_bytes()].concat();
        let piece = [bytes(1, b"<s>"), score, vec![3 << 3, 3]].concat();
        // bos_id = -1, as ten bytes.
        let no_bos = [&[0xc8, 0x02][..], &[0xff; 9], &[1]].concat();
        let trainer = [vec![3 << 3, 2], vec![0x98, 0x02, 1], no_bos].concat();
        let unknown = [vec![9 << 3 | 1], vec![7; 8]].concat();
        let file =
            [bytes(1, &piece), unknown, bytes(2, &trainer), bytes(3, &bytes(2, b"map"))].concat();
        let model = ModelProto::parse(&file).unwrap();
        let piece = Piece { text: "<s>".to_owned(), score: -1.5, kind: PieceKind::Control };
        assert_eq!(model.pieces, [piece]);
        assert_eq!((model.algorithm, model.byte_fallback), (Algorithm::Bpe, true));
        assert_eq!((model.bos_piece, model.eos_piece.as_deref()), (None, Some("</s>")));
        assert_eq!(model.charsmap, b"map");
    }

    #[test]
    fn damage_is_an_error_that_says_what() {
        let problem = |bytes: &[u8]| ModelProto::parse(bytes).unwrap_err().to_string();
        insta::assert_snapshot!(problem(b""), @"it has no pieces");
        insta::assert_snapshot!(problem(&[1 << 3 | 2, 5, 0]), @"it ends within a field");
        insta::assert_snapshot!(problem(&[1 << 3 | 3]), @"no field of a protocol buffer begins at byte 0");
        insta::assert_snapshot!(problem(&[0xff; 12]), @"no field of a protocol buffer begins at byte 10");
        insta::assert_snapshot!(problem(&bytes(1, &bytes(1, &[0xff]))), @"piece 0 is not UTF-8");
        let long =
            [&[1 << 3 | 2, 0x84, 0x08][..], &[1 << 3 | 2, 0x81, 0x08], &[b'a'; 1025]].concat();
        insta::assert_snapshot!(problem(&long), @"piece 0 is longer than 512 bytes");
    }
}
