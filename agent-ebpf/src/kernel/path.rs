//! The path of a file, from the kernel's tree of names.

use chokepoint_ebpf::unwind::file::{MAX_PATH_STEPS, NewFile, PATH_COMPONENT_LEN};

use super::{
    config::{
        DENTRY_NAME, DENTRY_PARENT, FILE_DENTRY, FILE_MOUNT, MOUNT_PARENT, MOUNT_POINT, MOUNT_ROOT, MOUNT_VFS,
    },
    stack,
    task::KernelPointer,
};

/// Where a walk up the tree is.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PathWalk {
    dentry: u64,
    mount: u64,
}

/// Writes the path of `file` into the record under construction in the scratch space of a source, as far as it fits.
#[inline(always)]
pub fn write(source: u64, file: KernelPointer, walk: &mut PathWalk, record: &mut NewFile) {
    record.path_bytes = 0;
    let (Some(dentry), Some(mount)) = (file.follow(&FILE_DENTRY), file.follow(&FILE_MOUNT)) else {
        return;
    };
    *walk = PathWalk { dentry: dentry.address(), mount: mount.address() };
    for _ in 0..MAX_PATH_STEPS {
        if path_step(source) != 0 {
            break;
        }
    }
}

/// One component of the path, or the way out of one mounted file system; not 0 when it was the last. A function of its own for
/// the reason that [`stack::unwind_frame`] is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn path_step(source: u64) -> u64 {
    let Some(scratch) = stack::scratch_at(source as u32) else {
        return 1;
    };
    // SAFETY: the scratch space is this program's alone.
    let (walk, record) = unsafe { (&mut (*scratch).path, &mut (*scratch).new_file) };
    u64::from(step(walk, record).is_none())
}

#[inline(always)]
fn step(walk: &mut PathWalk, record: &mut NewFile) -> Option<()> {
    let (dentry, mount) = (KernelPointer::new(walk.dentry), KernelPointer::new(walk.mount));
    if mount.follow(&MOUNT_ROOT)? == dentry {
        // On from where this file system is mounted, unless it is the first of all.
        let whole = mount.container(&MOUNT_VFS);
        let parent = whole.follow(&MOUNT_PARENT).filter(|parent| *parent != whole)?;
        walk.dentry = whole.follow(&MOUNT_POINT)?.address();
        walk.mount = parent.embedded(&MOUNT_VFS).address();
        return Some(());
    }
    let parent = dentry.follow(&DENTRY_PARENT).filter(|parent| *parent != dentry)?;
    let name = dentry.follow(&DENTRY_NAME)?;
    let length = name.read_component(&mut record.path, record.path_bytes as usize);
    if length == 0 || length > PATH_COMPONENT_LEN {
        return None;
    }
    record.path_bytes += length as u64;
    walk.dentry = parent.address();
    Some(())
}
