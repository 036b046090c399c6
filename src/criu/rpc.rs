//! The messages of CRIU's `rpc.proto`, as far as `rt` uses them. The numbers are the protocol's.

use prost::{Enumeration, Message};

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(crate) enum RequestKind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
}

/// `criu_cg_mode`: which cgroups and properties of cgroups are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(crate) enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
    Default = 6,
}

/// `criu_req`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CriuRequest {
    #[prost(enumeration = "RequestKind", required, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<CriuOptions>,
    #[prost(bool, optional, tag = "3")]
    pub(crate) notify_success: Option<bool>,
}

/// `criu_opts`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CriuOptions {
    /// The number of a descriptor of the process that made the socket, like `work_dir_fd`.
    #[prost(int32, required, tag = "1")]
    pub(crate) images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub(crate) pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub(crate) leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub(crate) ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub(crate) tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    pub(crate) evasive_devices: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(crate) shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub(crate) file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub(crate) log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub(crate) log_file: Option<String>,
    #[prost(message, optional, tag = "11")]
    pub(crate) page_server: Option<PageServer>,
    #[prost(bool, optional, tag = "12")]
    pub(crate) notify_scripts: Option<bool>,
    #[prost(string, optional, tag = "13")]
    pub(crate) root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub(crate) parent_img: Option<String>,
    #[prost(bool, optional, tag = "15")]
    pub(crate) track_mem: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub(crate) auto_dedup: Option<bool>,
    #[prost(int32, optional, tag = "17")]
    pub(crate) work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub(crate) link_remap: Option<bool>,
    #[prost(message, repeated, tag = "23")]
    pub(crate) external_mounts: Vec<ExternalMount>,
    #[prost(message, repeated, tag = "25")]
    pub(crate) cgroup_roots: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = "26")]
    pub(crate) rst_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub(crate) inherit_fds: Vec<InheritFd>,
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub(crate) manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub(crate) external: Vec<String>,
    /// A set of `CLONE_NEW*` flags.
    #[prost(uint32, optional, tag = "38")]
    pub(crate) empty_ns: Option<u32>,
    #[prost(message, repeated, tag = "39")]
    pub(crate) join_ns: Vec<JoinNamespace>,
    #[prost(string, optional, tag = "44")]
    pub(crate) freeze_cgroup: Option<String>,
    #[prost(bool, optional, tag = "46")]
    pub(crate) tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = "48")]
    pub(crate) lazy_pages: Option<bool>,
    #[prost(bool, optional, tag = "50")]
    pub(crate) orphan_pts_master: Option<bool>,
    #[prost(string, optional, tag = "51")]
    pub(crate) config_file: Option<String>,
    #[prost(string, optional, tag = "53")]
    pub(crate) lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub(crate) lsm_mount_context: Option<String>,
}

/// `criu_page_server_info`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PageServer {
    #[prost(string, optional, tag = "1")]
    pub(crate) address: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub(crate) port: Option<i32>,
}

/// `ext_mount_map`: at a dump it maps a place in the container to a name, at a restore that name to
/// a path on the host.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExternalMount {
    #[prost(string, required, tag = "1")]
    pub(crate) key: String,
    #[prost(string, required, tag = "2")]
    pub(crate) value: String,
}

/// `cgroup_root`: where the dumped cgroups of a hierarchy go.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CgroupRoot {
    #[prost(string, optional, tag = "1")]
    pub(crate) controller: Option<String>,
    #[prost(string, required, tag = "2")]
    pub(crate) path: String,
}

/// `inherit_fd`: a descriptor of CRIU that takes the place of the dumped file `key`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub(crate) key: String,
    #[prost(int32, required, tag = "2")]
    pub(crate) fd: i32,
}

/// `join_namespace`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct JoinNamespace {
    #[prost(string, required, tag = "1")]
    pub(crate) ns: String,
    #[prost(string, required, tag = "2")]
    pub(crate) file: String,
}

/// `criu_resp`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CriuResponse {
    #[prost(enumeration = "RequestKind", required, tag = "1")]
    pub(crate) kind: i32,
    #[prost(bool, required, tag = "2")]
    pub(crate) success: bool,
    #[prost(message, optional, tag = "5")]
    pub(crate) notify: Option<CriuNotify>,
    #[prost(int32, optional, tag = "7")]
    pub(crate) errno: Option<i32>,
}

/// `criu_notify`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CriuNotify {
    #[prost(string, optional, tag = "1")]
    pub(crate) script: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub(crate) pid: Option<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `protoc --encode=criu_req rpc.proto` of the same message.
    #[test]
    fn a_request_is_what_protobuf_makes_of_it() {
        let options = CriuOptions {
            images_dir_fd: 5,
            pid: Some(300),
            leave_running: Some(true),
            external: vec!["net[1]:n".into()],
            manage_cgroups_mode: Some(CgroupMode::Soft.into()),
            ..CriuOptions::default()
        };
        let request = CriuRequest {
            kind: RequestKind::Dump.into(),
            options: Some(options),
            ..CriuRequest::default()
        };
        let expected =
            b"\x08\x01\x12\x15\x08\x05\x10\xac\x02\x18\x01\x90\x02\x03\xaa\x02\x08net[1]:n";
        assert_eq!(request.encode_to_vec(), expected);
    }

    #[test]
    fn a_response_is_read_with_what_is_unknown_in_it() {
        let bytes = b"\x08\x06\x10\x01\x2a\x0c\x0a\x08pre-dump\x10\x07\x4a\x01x\x58\x05";
        let response = CriuResponse::decode(&bytes[..]).unwrap();
        assert_eq!(response.kind(), RequestKind::Notify);
        assert!(response.success);
        assert_eq!(response.notify.unwrap().pid, Some(7));
        assert!(CriuResponse::decode(&b"\x08"[..]).is_err());
    }
}
