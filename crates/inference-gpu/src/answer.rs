//! What is brought of the logits: of rows that need no more, the largest alone.

use crate::{
    driver::Driver,
    gpu::{Gpu, Tensor, list},
    launch::MOST_IN_Y,
    source::Module,
};
use inference_core::Result;
use inference_text::logits::{Ask, Asked, Logits};

/// Columns of a part of a row, and the most parts; the same as in `largest.cu`.
const PART: usize = 256 * 8;
const PARTS: usize = 256;

impl<D: Driver> Gpu<D> {
    /// Brings a whole matrix.
    pub(crate) fn bring(&self, x: &Tensor<D>) -> Result<Vec<f32>> {
        let mut all = vec![0.0_f32; x.len()];
        x.piece.download(0, bytemuck::cast_slice_mut(&mut all))?;
        Ok(all)
    }

    pub(crate) fn bring_asked(&self, x: &Tensor<D>, asked: &Asked) -> Result<Logits> {
        let columns = asked.columns.min(x.cols);
        let largest = |ask: &Ask| match ask {
            Ask::All => None,
            Ask::Largest(k) => Some((*k).clamp(1, columns.max(1))),
        };
        let most = asked.rows.iter().filter_map(largest).max();
        let fits = columns.div_ceil(PART) <= PARTS && columns > 0 && x.rows <= MOST_IN_Y;
        let Some(k) = most.filter(|_| fits && asked.rows.len() == x.rows) else {
            return Ok(Logits::all(self.bring(x)?, asked.rows.len()));
        };
        let found = self.largest(x, columns, k)?;
        let (ids, numbers) = found.split_at(x.rows * k);
        let mut logits = Logits::default();
        for (row, ask) in asked.rows.iter().enumerate() {
            let Some(n) = largest(ask) else {
                let to = bytemuck::cast_slice_mut(logits.push_all(x.cols));
                x.piece.download(row * x.cols * 4, to)?;
                continue;
            };
            let at = row * k..row * k + n;
            let numbers = numbers[at.clone()].iter().map(|bits| f32::from_bits(*bits));
            logits.push_largest(ids[at].iter().copied().zip(numbers).collect());
        }
        Ok(logits)
    }

    /// The `k` largest of the first `columns` numbers of each row: where they are, and their bits, `[rows, k]` each.
    fn largest(&self, x: &Tensor<D>, columns: usize, k: usize) -> Result<Vec<u32>> {
        let parts = columns.div_ceil(PART);
        let found = self.activations.lend(x.rows * parts * k * 8)?;
        let to = self.activations.lend(x.rows * k * 8)?;
        let args = list![found.address(), x.address(), x.cols, columns, parts, k];
        self.kernels.run(Module::Largest, "largest_of_parts", [parts, x.rows, 1], 256, args)?;
        let numbers = to.address() + 4 * (x.rows * k) as u64;
        let args = list![to.address(), numbers, found.address(), parts, k];
        self.kernels.run(Module::Largest, "largest_of_rows", [x.rows, 1, 1], 256, args)?;
        let mut words = vec![0_u32; 2 * x.rows * k];
        to.download(0, bytemuck::cast_slice_mut(&mut words))?;
        Ok(words)
    }
}
