//! The bundle's file.

use anyhow::{Context, Result, ensure};
use shardproof_common::chain::Check;

use super::{Forgery, forgery};
use crate::honest::Honest;
use crate::party::Forger;
use crate::scene::SHARDS;

/// Bytes before the count of shards: magic, version, digest of the card, run with its length.
const COUNT_AT: usize = 8 + 4 + 32 + 17;

pub(super) fn forgeries() -> Vec<Forgery> {
    let file = |name: &str, change: &str, edit: fn(&mut Vec<u8>) -> Result<()>| {
        forgery(name, Forger::Messenger, change, Check::Encoding, move |honest: &Honest| honest.draft().forged_as(edit))
    };
    vec![
        file("file-empty", "the bundle's file is empty", |bytes| {
            bytes.clear();
            Ok(())
        }),
        file("file-other-magic", "the first letter of the bundle's file is another", |bytes| {
            *bytes.first_mut().context("an empty file")? ^= 0x20;
            Ok(())
        }),
        file("file-other-version", "the bundle's file says that it is of the next version", |bytes| {
            bytes[8] += 1;
            Ok(())
        }),
        file("file-truncated", "the last byte of the bundle's file is cut off", |bytes| {
            bytes.pop().context("an empty file").map(drop)
        }),
        file("file-halved", "the second half of the bundle's file is cut off", |bytes| {
            bytes.truncate(bytes.len() / 2);
            Ok(())
        }),
        file("file-extended", "a zero follows the bundle", |bytes| {
            bytes.push(0);
            Ok(())
        }),
        file("file-twice", "the bundle follows itself", |bytes| {
            bytes.extend_from_within(..);
            Ok(())
        }),
        file("file-second-writing", "the count of shards is written in two bytes instead of one", |bytes| {
            ensure!(usize::from(bytes[COUNT_AT]) == SHARDS, "the count of shards is elsewhere");
            bytes[COUNT_AT] |= 0x80;
            bytes.insert(COUNT_AT + 1, 0);
            Ok(())
        }),
        file("file-endless-list", "the count of shards says 2^32", |bytes| {
            ensure!(usize::from(bytes[COUNT_AT]) == SHARDS, "the count of shards is elsewhere");
            bytes.splice(COUNT_AT..=COUNT_AT, [0x80, 0x80, 0x80, 0x80, 0x10]);
            Ok(())
        }),
    ]
}
