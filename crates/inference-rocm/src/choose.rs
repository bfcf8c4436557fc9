//! Which device to run on.

use crate::hip::DeviceInfo;
use inference_core::{DeviceChoice, Error, Result};

/// The device that `choice` names, or else the best.
///
/// A name is `rocm:0` or `0` (its place in HIP's order), `GPU-` with its UUID, or its PCI address; each may have `rocm:` before
/// it. By itself a card is chosen, or a processor's GPU that is made to compute if there is none, and of several the one
/// with the most compute units, then the most memory.
///
/// # Errors
/// No such device; or none that is chosen unless named.
pub(crate) fn choose<'a>(
    devices: &'a [DeviceInfo],
    choice: Option<&DeviceChoice>,
) -> Result<&'a DeviceInfo> {
    match choice {
        None => best(devices).ok_or_else(|| Error::BackendNotAvailable {
            name: crate::NAME.to_owned(),
            reason: only_integrated(devices),
        }),
        Some(DeviceChoice::Index(index)) => {
            devices.get(*index).ok_or_else(|| no_device(devices, &index.to_string()))
        }
        Some(DeviceChoice::Id(id)) => named(devices, id).ok_or_else(|| no_device(devices, id)),
    }
}

/// What [`DeviceChoice::Id`] finds again after a restart: the PCI address, else the UUID, else the place. Partitions of a
/// card share an address, and some cards a UUID: what more than one of `all` has is passed over.
pub(crate) fn stable_id(device: &DeviceInfo, all: &[DeviceInfo]) -> String {
    let is_own = |id: &String| named(all, id).is_some_and(|found| found.ordinal == device.ordinal);
    let pci = Some(device.pci.clone()).filter(is_own);
    let uuid = || device.uuid.clone().filter(is_own);
    pci.or_else(uuid).unwrap_or_else(|| format!("rocm:{}", device.ordinal))
}

/// The device that is chosen by itself, if any is.
pub(crate) fn best(devices: &[DeviceInfo]) -> Option<&DeviceInfo> {
    let rank = |d: &&DeviceInfo| {
        (!d.integrated, d.compute_units(), d.memory, std::cmp::Reverse(d.ordinal))
    };
    devices.iter().filter(|d| d.is_worth_choosing()).max_by_key(rank)
}

/// The sentence for a machine whose only devices are none to choose unasked.
pub(crate) fn only_integrated(devices: &[DeviceInfo]) -> String {
    let first = devices.first();
    let (name, id) = first.map(|d| (d.name.as_str(), stable_id(d, devices))).unwrap_or_default();
    format!(
        "the only AMD GPU is one inside the processor ({name}), which is hardly faster than the processor itself: \
         use the backend cpu, or name the device {id} to use it all the same"
    )
}

fn named<'a>(devices: &'a [DeviceInfo], id: &str) -> Option<&'a DeviceInfo> {
    let id = id.strip_prefix("rocm:").unwrap_or(id);
    if let Ok(ordinal) = id.parse::<i32>() {
        return devices.iter().find(|d| d.ordinal == ordinal);
    }
    let is_pci = |d: &DeviceInfo| !d.pci.is_empty() && d.pci.eq_ignore_ascii_case(id);
    let is_uuid = |d: &DeviceInfo| d.uuid.as_ref().is_some_and(|u| u.eq_ignore_ascii_case(id));
    // Cards without a number of their own may share one.
    let mut found = devices.iter().filter(|d| is_pci(d) || is_uuid(d));
    found.next().filter(|_| found.next().is_none())
}

fn no_device(devices: &[DeviceInfo], id: &str) -> Error {
    let known: Vec<_> =
        devices.iter().map(|d| format!("{} ({})", stable_id(d, devices), d.name)).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Error::option("device", format!("no AMD GPU {id:?}; there are {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ordinal: i32, target: &str, units: u32, integrated: bool) -> DeviceInfo {
        DeviceInfo {
            ordinal,
            name: format!("card {ordinal}"),
            target: target.to_owned(),
            pci: format!("0000:0{ordinal}:00.0"),
            uuid: Some(format!("GPU-000000000000000{ordinal}")),
            wave: 32,
            multiprocessors: units,
            shared_bytes: 65_536,
            max_block: 1024,
            integrated,
            memory: 1 << 34,
        }
    }

    fn chosen(devices: &[DeviceInfo], choice: Option<DeviceChoice>) -> Result<i32> {
        choose(devices, choice.as_ref()).map(|d| d.ordinal)
    }

    #[test]
    fn the_largest_card_is_chosen_and_never_a_desktop_s_own_graphics() {
        let small = device(0, "gfx1036", 1, false);
        let apu = device(1, "gfx1151", 20, true);
        let (card, same) = (device(2, "gfx1101", 30, false), device(3, "gfx1101", 30, false));
        let large = device(4, "gfx90a", 104, false);
        let all = [small.clone(), apu.clone(), card.clone(), same];
        assert_eq!(chosen(&all, None).ok(), Some(2));
        assert_eq!(chosen(&[card, large], None).ok(), Some(4), "104 units against 60");
        assert_eq!(chosen(&[small.clone(), apu], None).ok(), Some(1));
        assert!(chosen(&[device(0, "gfx1035", 6, true)], None).is_err(), "a laptop's, of before");
        let error = chosen(std::slice::from_ref(&small), None).expect_err("it is not to be chosen");
        assert!(error.to_string().contains("0000:00:00.0"), "{error}");
        assert_eq!(chosen(&[small], Some(DeviceChoice::Index(0))).ok(), Some(0), "unless named");
    }

    #[test]
    fn devices_are_named_by_place_uuid_and_address() {
        let all = [device(0, "gfx1100", 48, false), device(1, "gfx90a", 104, false)];
        for (id, ordinal) in [
            ("0", 0),
            ("rocm:1", 1),
            ("GPU-0000000000000001", 1),
            ("rocm:gpu-0000000000000000", 0),
            ("0000:01:00.0", 1),
            ("rocm:0000:00:00.0", 0),
        ] {
            assert_eq!(
                chosen(&all, Some(DeviceChoice::Id(id.to_owned()))).ok(),
                Some(ordinal),
                "{id}"
            );
            let id = stable_id(&all[ordinal as usize], &all);
            assert_eq!(chosen(&all, Some(DeviceChoice::Id(id))).ok(), Some(ordinal));
        }
        for id in ["2", "rocm:", "", "GPU-", "cuda:0", "0000:02:00.0"] {
            let error = chosen(&all, Some(DeviceChoice::Id(id.to_owned()))).expect_err(id);
            assert!(matches!(error, Error::InvalidOption { option: "device", .. }), "{error}");
        }
    }

    #[test]
    fn a_device_keeps_its_place_beside_one_that_cannot_be_used() {
        let second = [device(1, "gfx1100", 48, false)];
        assert_eq!(chosen(&second, Some(DeviceChoice::Id("rocm:1".to_owned()))).ok(), Some(1));
        assert!(chosen(&second, Some(DeviceChoice::Id("rocm:0".to_owned()))).is_err());
        assert_eq!(chosen(&second, Some(DeviceChoice::Index(0))).ok(), Some(1), "of the list");
    }

    #[test]
    fn a_uuid_of_two_cards_names_neither() {
        let mut all = [device(0, "gfx1100", 48, false), device(1, "gfx1100", 48, false)];
        all[1].uuid = all[0].uuid.clone();
        let uuid = all[0].uuid.clone().expect("it has one");
        assert!(chosen(&all, Some(DeviceChoice::Id(uuid))).is_err());
    }

    #[test]
    fn a_stable_id_names_one_device() {
        let ids = |all: &[DeviceInfo]| all.iter().map(|d| stable_id(d, all)).collect::<Vec<_>>();
        let mut all = [device(0, "gfx942", 38, false), device(1, "gfx942", 38, false)];
        assert_eq!(ids(&all), ["0000:00:00.0", "0000:01:00.0"]);
        all[1].pci = all[0].pci.clone();
        assert_eq!(ids(&all), ["GPU-0000000000000000", "GPU-0000000000000001"]);
        all[1].uuid = all[0].uuid.clone();
        assert_eq!(ids(&all), ["rocm:0", "rocm:1"]);
        all[1].pci = String::new();
        assert_eq!(ids(&all), ["0000:00:00.0", "rocm:1"]);
    }
}
