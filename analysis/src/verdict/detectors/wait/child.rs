//! A child process.

use super::found;
use crate::activity::Class;
use crate::verdict::code::Code;
use crate::verdict::detectors::Case;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let is_it = |part: &Part| part.root == Root::Outside && part.is_via(Via::Child);
    found(case, Code::WaitChild, is_it, &[Class::Child], "a child process")
}
