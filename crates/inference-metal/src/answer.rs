//! What is brought of the logits: of rows that need no more, the largest alone.

use crate::{
    Candle,
    device::{fault, shape},
    operations::Operations,
};
use candle_core::Tensor;
use inference_core::Result;
use inference_text::logits::{Ask, Asked, Logits};

impl<O: Operations> Candle<O> {
    pub(crate) fn bring(&self, x: &Tensor, asked: &Asked) -> Result<Logits> {
        let (rows, cols) = shape(x)?;
        let columns = asked.columns.min(cols);
        let largest = |ask: &Ask| match ask {
            Ask::All => None,
            Ask::Largest(k) => Some((*k).clamp(1, columns.max(1))),
        };
        let most = asked.rows.iter().filter_map(largest).max();
        let Some(k) = most.filter(|_| columns > 0 && rows == asked.rows.len()) else {
            return Ok(Logits::all(self.operations.read(x).map_err(fault)?, asked.rows.len()));
        };
        let found = self.largest(x, columns, k)?;
        let (ids, values) = found.split_at(rows * k);
        let whole = asked.rows.contains(&Ask::All).then(|| self.operations.read(x));
        let whole = whole.transpose().map_err(fault)?.unwrap_or_default();
        let mut logits = Logits::default();
        for (row, ask) in asked.rows.iter().enumerate() {
            match largest(ask) {
                None => logits.push_all(cols).copy_from_slice(&whole[row * cols..][..cols]),
                Some(n) => {
                    let of_row = row * k..row * k + n;
                    logits.push_largest(pairs(&ids[of_row.clone()], &values[of_row]));
                }
            }
        }
        Ok(logits)
    }

    /// Where the `k` largest of each row are, by their bits, and after all of these what they are.
    fn largest(&self, x: &Tensor, columns: usize, k: usize) -> Result<Vec<f32>> {
        let (rows, _) = shape(x)?;
        let found = self.room(2 * rows, k)?;
        let half = |first: usize| found.narrow(0, first, rows).map_err(fault);
        self.operations.largest(&half(0)?, &half(rows)?, x, columns).map_err(fault)?;
        self.operations.read(&found).map_err(fault)
    }
}

/// Ids and logits of a row; what can't be sampled is the first, if there is any, and spoils all.
fn pairs(ids: &[f32], values: &[f32]) -> Vec<(u32, f32)> {
    let wrong = values[0].is_nan() || values[0] == f32::INFINITY;
    let number = |x: f32| if wrong { f32::NAN } else { x + 0.0 };
    ids.iter().zip(values).map(|(id, x)| (id.to_bits(), number(*x))).collect()
}
