//! What a unit's root entry says of the code that the unit covers.

use gimli::{
    AttributeValue, DebugAddrBase, DebugAddrIndex, DebugRngListsBase, DwarfFileType, RangeListsOffset,
    UnitHeader,
};

use super::abbreviations;
use super::section_reader::SectionReader;

type Value = AttributeValue<SectionReader>;

/// Attributes of a root entry that bear on ranges. Bases may stand behind what they are the base of.
#[derive(Default)]
struct Root {
    low: Option<Value>,
    high: Option<Value>,
    ranges: Option<Value>,
    addresses: Option<DebugAddrBase<usize>>,
    range_lists: Option<DebugRngListsBase<usize>>,
}

/// Calls `add` with begin and end of each stretch of code that the unit with this `header` says it covers.
///
/// `Dwarf::unit` would read all the names of source files too, which is most of what making a context of a whole file costs.
pub(super) fn for_each_range(
    dwarf: &gimli::Dwarf<SectionReader>,
    header: &UnitHeader<SectionReader>,
    mut add: impl FnMut(u64, u64),
) -> gimli::Result<()> {
    let Some(root) = read(dwarf, header)? else { return Ok(()) };
    let encoding = header.encoding();
    let addresses = root.addresses.unwrap_or(DebugAddrBase(0));
    let at =
        |index: DebugAddrIndex<usize>| dwarf.debug_addr.get_address(encoding.address_size, addresses, index);
    let low = match root.low {
        Some(AttributeValue::Addr(address)) => Some(address),
        Some(AttributeValue::DebugAddrIndex(index)) => Some(at(index)?),
        _ => None,
    };
    let lists = root
        .range_lists
        .unwrap_or_else(|| DebugRngListsBase::default_for_encoding_and_file(encoding, DwarfFileType::Main));
    let ranges = match root.ranges {
        Some(AttributeValue::RangeListsRef(offset)) => Some(RangeListsOffset(offset.0)),
        Some(AttributeValue::DebugRngListsIndex(index)) => {
            Some(dwarf.ranges.get_offset(encoding, lists, index)?)
        }
        _ => None,
    };
    if let Some(offset) = ranges {
        let base = low.unwrap_or(0);
        let mut ranges = dwarf.ranges.ranges(offset, encoding, base, &dwarf.debug_addr, addresses)?;
        while let Some(range) = ranges.next()? {
            add(range.begin, range.end);
        }
        return Ok(());
    }
    let (Some(low), Some(high)) = (low, root.high) else { return Ok(()) };
    let high = match high {
        AttributeValue::Addr(address) => address,
        AttributeValue::DebugAddrIndex(index) => at(index)?,
        length => low.wrapping_add(length.udata_value().unwrap_or(0)),
    };
    add(low, high);
    Ok(())
}

fn read(
    dwarf: &gimli::Dwarf<SectionReader>,
    header: &UnitHeader<SectionReader>,
) -> gimli::Result<Option<Root>> {
    let abbreviations = abbreviations::read(dwarf, header)?;
    let mut entries = header.entries_raw(&abbreviations, None)?;
    let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
    let mut root = Root::default();
    for spec in abbreviation.attributes() {
        let attribute = entries.read_attribute(*spec)?;
        let value = attribute.value();
        match (attribute.name(), value) {
            (gimli::DW_AT_low_pc, value) => root.low = Some(value),
            (gimli::DW_AT_high_pc, value) => root.high = Some(value),
            (gimli::DW_AT_ranges, value) => root.ranges = Some(value),
            (gimli::DW_AT_addr_base | gimli::DW_AT_GNU_addr_base, AttributeValue::DebugAddrBase(base)) => {
                root.addresses = Some(base);
            }
            // `DW_AT_GNU_ranges_base` is for the unit in the `.dwo` file.
            (gimli::DW_AT_rnglists_base, AttributeValue::DebugRngListsBase(base)) => {
                root.range_lists = Some(base);
            }
            _ => {}
        }
    }
    Ok(Some(root))
}
