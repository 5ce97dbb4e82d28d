//! Token sequence of the understanding expert: ids, rotary positions and attention mask.
//!
//! Order: prefix, then for each frame a start token, one token per merged patch and an end token,
//! then the instruction. Text advances all three position rows by one. Within a frame the rows are
//! time, height and width, and the next token continues after the largest of them. Text is causal;
//! a frame's block, including its start and end tokens, also attends to itself up to its end. The
//! mask is therefore one number per row: the row attends to columns `0..visible_until`.

use super::tokenizer::SpecialTokens;

/// Merged patches of a frame, one image token each, in row-major order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageGrid {
    pub rows: usize,
    pub columns: usize,
}

impl ImageGrid {
    /// Returns the number of image tokens of the frame.
    pub fn tokens(self) -> usize {
        self.rows * self.columns
    }
}

/// Attention mask within the instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InstructionMask {
    /// Causal, as the AutoMoT release drives.
    #[default]
    Causal,
    /// The complete instruction, as the release was trained.
    Full,
}

/// Parts of a prompt.
#[derive(Clone, Copy)]
pub struct PromptTokens<'a> {
    pub prefix: &'a [u32],
    /// Grids of the frames, oldest first.
    pub frames: &'a [ImageGrid],
    pub instruction: &'a [u32],
    /// Ids of image tokens and of the tokens around them.
    pub special: SpecialTokens,
    pub instruction_mask: InstructionMask,
}

/// Output buffers of a sequence with capacity `C`, the inputs of the network.
pub struct SequenceBuffers<'a> {
    /// `[C]`. Padding is 0.
    pub token_ids: &'a mut [i64],
    /// `[3, C]`, rows time, height, width. Padding continues the count.
    pub position_ids: &'a mut [i64],
    /// `[C]`: 0 for text, k + 1 for the k-th image token over all frames. Padding is 0.
    pub image_slot: &'a mut [i64],
    /// `[C]`: row i attends to columns `0..visible_until[i]`. Padding is causal.
    pub visible_until: &'a mut [i64],
}

/// Extent of a sequence in its buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SequenceExtent {
    /// Number of tokens before the padding.
    pub valid_tokens: usize,
    /// Number of image tokens among them.
    pub image_tokens: usize,
    /// One past the largest position: the first position of the action tokens.
    pub next_position: i64,
}

/// Error returned for a prompt that exceeds the capacity of the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the prompt has {needed} tokens, the capacity of the network is {capacity}")]
pub struct PromptTooLong {
    pub needed: usize,
    pub capacity: usize,
}

impl PromptTokens<'_> {
    /// Returns the number of tokens of the prompt.
    pub fn len(&self) -> usize {
        let frames: usize = self.frames.iter().map(|grid| grid.tokens() + 2).sum();
        self.prefix.len() + frames + self.instruction.len()
    }

    /// Returns true if the prompt has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the sequence and its padding without allocating. If the prompt exceeds the capacity,
    /// returns an error and leaves the buffers unchanged. Panics if the buffers differ in capacity.
    pub fn lay_out(&self, buffers: SequenceBuffers<'_>) -> Result<SequenceExtent, PromptTooLong> {
        let capacity = buffers.token_ids.len();
        assert_eq!(buffers.position_ids.len(), 3 * capacity, "position_ids is not [3, {capacity}]");
        assert_eq!(buffers.image_slot.len(), capacity, "image_slot is not [{capacity}]");
        assert_eq!(buffers.visible_until.len(), capacity, "visible_until is not [{capacity}]");
        if self.len() > capacity {
            return Err(PromptTooLong { needed: self.len(), capacity });
        }
        let mut cursor = Cursor { buffers, capacity, row: 0, position: 0, image_tokens: 0 };
        for &id in self.prefix {
            cursor.text(id, cursor.row + 1);
        }
        for &grid in self.frames {
            cursor.frame(grid, self.special);
        }
        let end = self.len();
        for &id in self.instruction {
            let until = match self.instruction_mask {
                InstructionMask::Causal => cursor.row + 1,
                InstructionMask::Full => end,
            };
            cursor.text(id, until);
        }
        let extent = SequenceExtent {
            valid_tokens: end,
            image_tokens: cursor.image_tokens,
            next_position: cursor.position,
        };
        while cursor.row < capacity {
            cursor.text(0, cursor.row + 1);
        }
        Ok(extent)
    }
}

/// Writer of a sequence at its next row.
struct Cursor<'a> {
    buffers: SequenceBuffers<'a>,
    capacity: usize,
    row: usize,
    position: i64,
    image_tokens: usize,
}

impl Cursor<'_> {
    fn text(&mut self, id: u32, visible_until: usize) {
        self.write(id, [self.position; 3], 0, visible_until);
        self.position += 1;
    }

    fn frame(&mut self, grid: ImageGrid, special: SpecialTokens) {
        let block_end = self.row + grid.tokens() + 2;
        self.text(special.vision_start, block_end);
        let first = self.position;
        for row in 0..grid.rows {
            for column in 0..grid.columns {
                self.image_tokens += 1;
                let position = [first, first + row as i64, first + column as i64];
                self.write(special.image_pad, position, self.image_tokens, block_end);
            }
        }
        self.position += grid.rows.max(grid.columns) as i64;
        self.text(special.vision_end, block_end);
    }

    fn write(&mut self, id: u32, position: [i64; 3], image_slot: usize, visible_until: usize) {
        let row = self.row;
        self.buffers.token_ids[row] = i64::from(id);
        for (axis, position) in position.into_iter().enumerate() {
            self.buffers.position_ids[axis * self.capacity + row] = position;
        }
        self.buffers.image_slot[row] = image_slot as i64;
        self.buffers.visible_until[row] = visible_until as i64;
        self.row += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: SpecialTokens = SpecialTokens {
        message_start: 151_644,
        message_end: 151_645,
        vision_start: 151_652,
        vision_end: 151_653,
        image_pad: 151_655,
    };

    struct Sequence {
        extent: SequenceExtent,
        token_ids: Vec<i64>,
        position_ids: Vec<i64>,
        visible_until: Vec<i64>,
    }

    /// Lays out the prompt of the release: 16 prefix tokens, four frames of 8 ×
    /// 16, 89 instruction tokens.
    fn release(
        capacity: usize,
        instruction_mask: InstructionMask,
    ) -> Result<Sequence, PromptTooLong> {
        let mut token_ids = vec![-1; capacity];
        let mut position_ids = vec![-1; 3 * capacity];
        let mut image_slot = vec![-1; capacity];
        let mut visible_until = vec![-1; capacity];
        let extent = PromptTokens {
            prefix: &[7; 16],
            frames: &[ImageGrid { rows: 8, columns: 16 }; 4],
            instruction: &[9; 89],
            special: SPECIAL,
            instruction_mask,
        }
        .lay_out(SequenceBuffers {
            token_ids: &mut token_ids,
            position_ids: &mut position_ids,
            image_slot: &mut image_slot,
            visible_until: &mut visible_until,
        })?;
        assert_eq!(image_slot.iter().max(), Some(&512));
        Ok(Sequence { extent, token_ids, position_ids, visible_until })
    }

    #[test]
    fn release_prompt_has_published_extent_and_mask() {
        let sequence = release(640, InstructionMask::Causal).unwrap();
        let expected = SequenceExtent { valid_tokens: 625, image_tokens: 512, next_position: 177 };
        assert_eq!(sequence.extent, expected);
        assert_eq!(sequence.visible_until[..625].iter().sum::<i64>(), 229_165);
        assert_eq!(sequence.position_ids[624], 176);
        for frame in 0..4 {
            let (start, position) = (16 + 130 * frame, 16 + 18 * frame as i64);
            assert_eq!(sequence.token_ids[start], 151_652);
            assert_eq!(sequence.position_ids[start], position);
            let last_pad = start + 128;
            let axes = [0, 1, 2].map(|axis| sequence.position_ids[axis * 640 + last_pad]);
            assert_eq!(axes, [position + 1, position + 8, position + 16]);
            assert_eq!(sequence.token_ids[last_pad + 1], 151_653);
            assert_eq!(sequence.position_ids[last_pad + 1], position + 17);
        }
    }

    #[test]
    fn full_mask_covers_complete_instruction() {
        let causal = release(625, InstructionMask::Causal).unwrap();
        let full = release(625, InstructionMask::Full).unwrap();
        assert_eq!(full.visible_until[..536], causal.visible_until[..536]);
        assert!(full.visible_until[536..].iter().all(|&until| until == 625));
    }

    #[test]
    fn padding_is_causal_and_not_attended_to() {
        let sequence = release(640, InstructionMask::Causal).unwrap();
        for row in 625..640 {
            assert_eq!(sequence.token_ids[row], 0);
            assert_eq!(sequence.visible_until[row], row as i64 + 1);
            assert_eq!(sequence.position_ids[row], 177 + (row as i64 - 625));
        }
    }

    #[test]
    fn prompt_beyond_capacity_is_refused() {
        let error = release(624, InstructionMask::Causal).err();
        assert_eq!(error, Some(PromptTooLong { needed: 625, capacity: 624 }));
    }
}
