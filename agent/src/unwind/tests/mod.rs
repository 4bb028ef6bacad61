//! Tables against what they are made of: bytes put together by hand, real files read by others, and damaged ones.

mod fixture;
mod forms;
mod go_binaries;
mod hostile;
mod layout;
mod real_files;
