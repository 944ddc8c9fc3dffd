//! Who may connect to the socket: its owner, its group (`homing` under the service of the package), and
//! the group `homing-admin` by an access list.

use std::io;
use std::path::Path;

use nix::unistd::{Gid, Group};
use rustix::fs::{XattrFlags, setxattr};

/// The group whose members may change something.
pub(super) const ADMINS: &str = "homing-admin";

/// Lets members of `homing-admin` connect, whatever the socket's own group is.
///
/// # Errors
/// When the file system keeps no access lists.
pub(super) fn admit_admins(socket: &Path) -> io::Result<()> {
    let Ok(Some(admins)) = Group::from_name(ADMINS) else { return Ok(()) };
    let list = access_list(admins.gid);
    Ok(setxattr(socket, c"system.posix_acl_access", &list, XattrFlags::empty())?)
}

/// `user::rw-,group::rw-,group:ADMINS:rw-,mask::rw-,other::---` as the kernel takes it
/// (`include/uapi/linux/posix_acl_xattr.h`).
fn access_list(admins: Gid) -> Vec<u8> {
    const VERSION: u32 = 2;
    const READ_WRITE: u16 = 6;
    const NOBODY: u32 = u32::MAX;
    let (owner, own_group, group, mask, other) = (0x01_u16, 0x04, 0x08, 0x10, 0x20);
    let entries = [
        (owner, READ_WRITE, NOBODY),
        (own_group, READ_WRITE, NOBODY),
        (group, READ_WRITE, admins.as_raw()),
        (mask, READ_WRITE, NOBODY),
        (other, 0, NOBODY),
    ];
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, rights, whose) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(whose.to_le_bytes());
    }
    list
}
