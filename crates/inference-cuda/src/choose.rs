//! Which device to run on.

use crate::{
    Device,
    diagnose::{LEAST, Problem},
};
use inference_core::{DeviceChoice, Error, Result};

/// The device that `choice` names, or else the best.
///
/// A name is `cuda:0` or `0` (its place in the list), `GPU-` with its UUID, or its PCI address; each may have `cuda:` before
/// it. By itself the device with the most multiprocessors is chosen, then the one with the most memory.
///
/// # Errors
/// No such device; or one that is too old.
pub(crate) fn choose<'a>(
    devices: &'a [Device],
    choice: Option<&DeviceChoice>,
) -> Result<&'a Device> {
    let device = match choice {
        None => best(devices).or(devices.first()).ok_or_else(|| no_device(devices, ""))?,
        Some(DeviceChoice::Index(index)) => {
            devices.get(*index).ok_or_else(|| no_device(devices, &index.to_string()))?
        }
        Some(DeviceChoice::Id(id)) => named(devices, id).ok_or_else(|| no_device(devices, id))?,
    };
    match too_old(device) {
        Some(problem) => Err(Error::BackendNotAvailable {
            name: crate::NAME.to_owned(),
            reason: problem.to_string(),
        }),
        None => Ok(device),
    }
}

/// What [`DeviceChoice::Id`] finds again after a restart.
pub(crate) fn stable_id(device: &Device) -> &str {
    &device.pci
}

/// The device that is chosen by itself, if any can be.
pub(crate) fn best(devices: &[Device]) -> Option<&Device> {
    let rank = |d: &&Device| (d.multiprocessors, d.memory, std::cmp::Reverse(d.ordinal));
    devices.iter().filter(|device| too_old(device).is_none()).max_by_key(rank)
}

/// What is said of a device that the kernels can't run on.
pub(crate) fn too_old(device: &Device) -> Option<Problem> {
    (device.capability < LEAST)
        .then(|| Problem::OldDevice { name: device.name.clone(), capability: device.capability })
}

fn named<'a>(devices: &'a [Device], id: &str) -> Option<&'a Device> {
    let id = id.strip_prefix("cuda:").unwrap_or(id);
    if let Ok(index) = id.parse::<usize>() {
        return devices.get(index);
    }
    let address = pci(id);
    let is_it = |d: &&Device| {
        d.uuid.eq_ignore_ascii_case(id) || (address.is_some() && pci(&d.pci) == address)
    };
    // Parts of one card have its address.
    let mut found = devices.iter().filter(is_it);
    found.next().filter(|_| found.next().is_none())
}

/// Domain, bus and device of an address; `nvidia-smi` writes the domain with eight digits.
fn pci(id: &str) -> Option<[u32; 3]> {
    let (domain, rest) = id.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
    let hex = |text| u32::from_str_radix(text, 16).ok();
    (function == "0").then_some([hex(domain)?, hex(bus)?, hex(device)?])
}

fn no_device(devices: &[Device], id: &str) -> Error {
    let known: Vec<_> = devices.iter().map(|d| format!("{} ({})", stable_id(d), d.name)).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Error::option("device", format!("no NVIDIA GPU {id:?}; there are {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ordinal: i32, capability: (u32, u32), multiprocessors: u32, memory: u64) -> Device {
        Device {
            ordinal,
            name: format!("card {ordinal}"),
            capability,
            pci: format!("0000:{:02x}:00.0", 0x3a + ordinal),
            uuid: format!("GPU-0000000{ordinal}-0000-0000-0000-000000000000"),
            multiprocessors,
            shared_bytes: 49_152,
            memory,
            integrated: false,
        }
    }

    fn chosen(devices: &[Device], choice: Option<DeviceChoice>) -> Result<i32> {
        choose(devices, choice.as_ref()).map(|d| d.ordinal)
    }

    #[test]
    fn the_largest_card_is_chosen_and_never_one_that_is_too_old() {
        let (small, large) = (device(0, (8, 9), 24, 8), device(1, (9, 0), 132, 80));
        let (more, old) = (device(2, (9, 0), 132, 141), device(3, (3, 7), 200, 12));
        let all = [small.clone(), large.clone(), more, old.clone()];
        assert_eq!(chosen(&all, None).ok(), Some(2));
        assert_eq!(chosen(&[small.clone(), large], None).ok(), Some(1));
        assert_eq!(chosen(&[old.clone(), small], None).ok(), Some(0));
        let error = chosen(&[old], None).expect_err("it is too old").to_string();
        assert!(
            error.contains("card 3") && error.contains("3.7") && error.contains("5.0"),
            "{error}"
        );
        assert!(chosen(&all, Some(DeviceChoice::Index(3))).is_err(), "even if named");
        assert!(chosen(&[], None).is_err());
    }

    #[test]
    fn devices_are_named_by_place_uuid_and_address() {
        let all = [device(0, (8, 0), 108, 40), device(1, (9, 0), 132, 80)];
        for (id, ordinal) in [
            ("0", 0),
            ("cuda:1", 1),
            ("GPU-00000001-0000-0000-0000-000000000000", 1),
            ("cuda:gpu-00000000-0000-0000-0000-000000000000", 0),
            ("0000:3b:00.0", 1),
            ("00000000:3B:00.0", 1),
            ("cuda:0000:3a:00.0", 0),
        ] {
            let id = Some(DeviceChoice::Id(id.to_owned()));
            assert_eq!(chosen(&all, id.clone()).ok(), Some(ordinal), "{id:?}");
            let id = stable_id(&all[ordinal as usize]).to_owned();
            assert_eq!(chosen(&all, Some(DeviceChoice::Id(id))).ok(), Some(ordinal));
        }
        for id in ["2", "cuda:", "", "GPU-", "rocm:0", "0000:3c:00.0", "0000:3a:00.1"] {
            let error = chosen(&all, Some(DeviceChoice::Id(id.to_owned()))).expect_err(id);
            assert!(matches!(error, Error::InvalidOption { option: "device", .. }), "{error}");
        }
    }
}
