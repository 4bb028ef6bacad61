//! The messages that leave and enter Chokepoint's processes, generated from the `.proto` files beside this crate's
//! manifest. One file a subject; what each field means, and what absent and zero mean, stands there.

#![forbid(unsafe_code)]

/// Profiles as pprof reads them.
#[allow(missing_docs, unused_qualifications, reason = "generated")]
pub mod pprof {
    include!(concat!(env!("OUT_DIR"), "/perftools.profiles.rs"));
}

/// What agents and collectors say to each other.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
pub mod stream {
    include!(concat!(env!("OUT_DIR"), "/chokepoint.stream.v1.rs"));
}

pub mod dictionary;
pub mod latency;

/// What a node's container runtime tells of its containers and pods.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
pub mod cri {
    include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
}

pub mod json;

/// What Grafana's Pyroscope data source asks and what Pyroscope's clients send.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
pub mod pyroscope {
    pub mod types {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/types.v1.rs"));
        }
    }
    pub mod querier {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/querier.v1.rs"));
        }
    }
    pub mod push {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/push.v1.rs"));
        }
    }
}
