//! What comes back is what the configuration says, or nothing does.

use std::io::BufRead;

use serde_json::json;

use super::{Neighbour, counting, has_begun, piped, with_criu};
use crate::harness::{Bundle, Container, Done, namespace_of, until};

/// The restore of what `c` was, as a container of `bundle`.
fn restored_as(bundle: &Bundle, c: &Container) -> Done {
    let images = c.bundle().beside("images").display().to_string();
    let words = ["restore", "--detach", "--image-path", &images];
    bundle.launch(&words, &bundle.id()).redirections("").run()
}

/// Only the images of a container of `before` are left.
fn images_of(before: Bundle) -> Container {
    let c = before.start();
    has_begun(&c);
    c.checkpoint(&[]).success();
    c.wait();
    c
}

#[track_caller]
fn is_refused(bundle: &Bundle, c: &Container, words: &[&str]) {
    eprintln!("{words:?}");
    restored_as(bundle, c).one_line().says(words);
    bundle.leftovers().assert_none_since();
}

const NONE: &str = "the images have none of their own";
const OWN: &str = "the images have one of their own";

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn namespaces_other_than_those_of_the_configuration_are_refused() {
    let (first, second) = (Neighbour::start(), Neighbour::start());
    let counting = || counting().config(|c| c["hostname"] = json!(""));
    let plain = images_of(counting());
    is_refused(&counting().user_namespace(), &plain, &["linux.namespaces: user", NONE]);
    let network = first.network();
    let joining = counting().joins("network", &network);
    is_refused(&joining, &plain, &["linux.namespaces[", &network, "another network"]);
    for kind in ["network", "pid", "uts", "ipc"] {
        let shared = counting().without_namespace(kind);
        is_refused(&shared, &plain, &[&format!("linux.namespaces: {kind}"), OWN]);
        if kind != "pid" {
            let images = images_of(shared);
            is_refused(&counting(), &images, &[&format!("linux.namespaces: {kind}"), NONE]);
        }
    }
    let images = images_of(joining);
    let other = counting().joins("network", &second.network());
    restored_as(&other, &images).success();
    assert_eq!(namespace_of(Container::of(other).pid(), "net"), namespace_of(second.0.id(), "net"));
    is_refused(&counting(), &images, &["criu failed"]);
}

#[test]
#[ignore = "needs CRIU: make test-criu"]
fn the_ids_of_the_images_are_those_of_the_configuration() {
    let c = images_of(counting().user_namespace());
    for kind in ["uid", "gid"] {
        let key = format!("{kind}Mappings");
        let bundle = counting().user_namespace();
        let bundle = bundle.config(|c| c["linux"][&key][0]["size"] = json!(4711));
        is_refused(&bundle, &c, &[&format!("linux.{key}: the images have others")]);
    }
}

/// As it can be in a container that was not checkpointed.
#[test]
#[ignore = "needs CRIU: make test-criu"]
fn a_pipe_of_the_callers_can_be_opened_again_in_a_user_namespace() {
    let script = "trap 'echo asked >/dev/stdout || echo refused' USR1; echo begun; while :; do sleep 0.02; done";
    let bundle = with_criu(Bundle::busybox().script(script).user_namespace());
    let mut line = String::new();
    piped(&bundle.launch(&["run", "--detach"], &bundle.id())).read_line(&mut line).unwrap();
    let c = Container::of(bundle);
    c.checkpoint(&[]).success();
    c.wait();
    let images = c.bundle().beside("images").display().to_string();
    let words = ["restore", "--detach", "--image-path", &images];
    let mut output = piped(&c.bundle().launch(&words, &c.id));
    until("it runs", || c.rt(["state", &c.id]).run().stdout.contains("running"));
    c.kill("USR1");
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\nasked\n");
}
