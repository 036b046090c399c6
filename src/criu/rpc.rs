//! The messages of CRIU's `rpc.proto`, as far as `rt` uses them. The numbers are the protocol's.

use prost::{Enumeration, Message};

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum RequestKind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
}

/// `criu_cg_mode`: which cgroups and properties of cgroups are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
    Default = 6,
}

/// `criu_req`.
#[derive(Clone, PartialEq, Message)]
pub struct CriuRequest {
    #[prost(enumeration = "RequestKind", required, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub options: Option<CriuOptions>,
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
}

/// `criu_opts`.
#[derive(Clone, PartialEq, Message)]
pub struct CriuOptions {
    /// The number of a descriptor of the process that made the socket, like `work_dir_fd`.
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    pub evasive_devices: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    #[prost(message, optional, tag = "11")]
    pub page_server: Option<PageServer>,
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub parent_img: Option<String>,
    #[prost(bool, optional, tag = "15")]
    pub track_mem: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    #[prost(message, repeated, tag = "23")]
    pub external_mounts: Vec<ExternalMount>,
    #[prost(message, repeated, tag = "25")]
    pub cgroup_roots: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = "26")]
    pub rst_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub inherit_fds: Vec<InheritFd>,
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    /// A set of `CLONE_NEW*` flags.
    #[prost(uint32, optional, tag = "38")]
    pub empty_ns: Option<u32>,
    #[prost(message, repeated, tag = "39")]
    pub join_ns: Vec<JoinNamespace>,
    #[prost(string, optional, tag = "44")]
    pub freeze_cgroup: Option<String>,
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
}

/// `criu_page_server_info`.
#[derive(Clone, PartialEq, Message)]
pub struct PageServer {
    #[prost(string, optional, tag = "1")]
    pub address: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub port: Option<i32>,
}

/// `ext_mount_map`: at a dump it maps a place in the container to a name, at a restore that name to
/// a path on the host.
#[derive(Clone, PartialEq, Message)]
pub struct ExternalMount {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(string, required, tag = "2")]
    pub value: String,
}

/// `cgroup_root`: where the dumped cgroups of a hierarchy go.
#[derive(Clone, PartialEq, Message)]
pub struct CgroupRoot {
    #[prost(string, optional, tag = "1")]
    pub controller: Option<String>,
    #[prost(string, required, tag = "2")]
    pub path: String,
}

/// `inherit_fd`: a descriptor of CRIU that takes the place of the dumped file `key`.
#[derive(Clone, PartialEq, Message)]
pub struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// `join_namespace`.
#[derive(Clone, PartialEq, Message)]
pub struct JoinNamespace {
    #[prost(string, required, tag = "1")]
    pub ns: String,
    #[prost(string, required, tag = "2")]
    pub file: String,
}

/// `criu_resp`.
#[derive(Clone, PartialEq, Message)]
pub struct CriuResponse {
    #[prost(enumeration = "RequestKind", required, tag = "1")]
    pub kind: i32,
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    #[prost(message, optional, tag = "5")]
    pub notify: Option<CriuNotify>,
    #[prost(int32, optional, tag = "7")]
    pub errno: Option<i32>,
}

/// `criu_notify`.
#[derive(Clone, PartialEq, Message)]
pub struct CriuNotify {
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
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
