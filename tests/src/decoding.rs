//! Steps of a model's sequences, as a test says: without a scheduler, on any device.

use crate::fixtures;
use inference_core::CacheDtype;
use inference_engine::{checkpoint::Checkpoint, decoder::Decoder, device::Device, step::Step};

/// A model on a device, and sequences that get tokens as a test says.
pub struct Run<D: Device> {
    /// The device.
    pub device: D,
    /// The model.
    pub decoder: Decoder<D>,
    /// Its cache, where each sequence has its place.
    pub cache: D::Cache,
    /// How many tokens each sequence has.
    pub lengths: Vec<usize>,
}

/// Tokens of a sequence of these tests, at most.
pub const LONGEST: usize = 640;

impl<D: Device> Run<D> {
    /// The fixture `family` on a device, after prompts of these lengths.
    ///
    /// # Panics
    /// Where it can't be loaded, or the device fails.
    pub fn new(device: D, family: &str, lengths: &[usize]) -> Self {
        let checkpoint = Checkpoint::open(&fixtures::path(family)).expect("is described");
        let weights = checkpoint.weights().expect("opens");
        let architecture = checkpoint.architecture().clone();
        let layers: Vec<_> = architecture.layers.iter().map(|l| l.attention.clone()).collect();
        let source = checkpoint.source(&*weights, &|_| {});
        let decoder = Decoder::load(&device, architecture, source).expect("loads");
        let blocks = lengths.len() * LONGEST / device.block_len();
        let cache = device.cache(&layers, blocks, CacheDtype::Bf16).expect("fits");
        let mut run = Self { device, decoder, cache, lengths: vec![0; lengths.len()] };
        for (i, &length) in lengths.iter().enumerate() {
            while run.lengths[i] < length {
                run.step(&[(i, 200.min(length - run.lengths[i]))]);
            }
        }
        run
    }

    /// Runs a step in which each of these sequences gets so many tokens; gives the bits of their logits.
    ///
    /// # Panics
    /// Where the device fails.
    pub fn step(&mut self, sequences: &[(usize, usize)]) -> Vec<u32> {
        let blocks_of = LONGEST / self.device.block_len();
        let mut step = Step::default();
        for &(i, new) in sequences {
            let past = self.lengths[i];
            let tokens: Vec<u32> = (past..past + new).map(|p| ((p * 7 + i) % 50) as u32).collect();
            let needed = (past + new).div_ceil(self.device.block_len());
            let blocks: Vec<u32> = (0..needed).map(|b| (i * blocks_of + b) as u32).collect();
            step.push(&tokens, past, past + new, &blocks, 1);
            self.lengths[i] += new;
        }
        let logits = self.decoder.forward(&self.device, &mut self.cache, &step).expect("runs");
        self.device.read(logits).expect("reads").iter().map(|x| x.to_bits()).collect()
    }
}

/// Sequences that decode: one whose context grows over a bound, others that join and leave, one with a prompt on the way.
pub const STEPS: [&[(usize, usize)]; 20] = [
    &[(0, 1)],
    &[(0, 1)],
    &[(0, 1)],
    &[(0, 1), (1, 1)],
    &[(0, 1), (1, 1)],
    &[(1, 1), (0, 1)],
    &[(0, 1), (1, 1), (2, 1)],
    &[(2, 1), (1, 1), (0, 1)],
    &[(0, 1), (1, 1), (2, 1)],
    &[(1, 1)],
    &[(1, 1), (2, 9)],
    &[(1, 1)],
    &[(2, 1), (1, 1)],
    &[(2, 1), (1, 1)],
    &[(0, 1)],
    &[(0, 1)],
    &[(0, 1)],
    &[(2, 1)],
    &[(2, 1)],
    &[(2, 1)],
];

/// Before them.
pub const LENGTHS: [usize; 3] = [251, 20, 509];
