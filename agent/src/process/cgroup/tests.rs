//! Paths of control groups as systemd, container engines and Kubernetes make them.

use super::*;

const ID: &str = "3f2a9c0d4b1e58677f00aa11bb22cc33dd44ee55ff66007788990011223344ab";
const OUTER: &str = "00000000000000000000000000000000000000000000000000000000deadbeef";

/// Paths as the named software makes them, `ID` for the container's id: unit, whether the container is found.
#[test]
fn paths_of_the_field() {
    let table: &[(&str, &str, &str, bool)] = &[
        ("docker, cgroupfs", "/docker/ID", "", true),
        ("docker, systemd", "/system.slice/docker-ID.scope", "docker-ID.scope", true),
        (
            "docker rootless",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            "docker-ID.scope",
            true,
        ),
        ("docker, own parent", "/custom/ID/sub", "", true),
        ("docker with systemd inside", "/docker/ID/system.slice/nginx.service", "nginx.service", true),
        ("docker daemon", "/system.slice/docker.service", "docker.service", false),
        (
            "kind: pod in a node in docker",
            "/docker/OUTER/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podf3.slice/cri-containerd-ID.scope",
            "cri-containerd-ID.scope",
            true,
        ),
        ("docker in docker", "/docker/OUTER/docker/ID", "", true),
        ("podman, systemd", "/machine.slice/libpod-ID.scope", "libpod-ID.scope", true),
        ("podman, split", "/machine.slice/libpod-ID.scope/container", "libpod-ID.scope", true),
        (
            "podman rootless",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "libpod-ID.scope",
            true,
        ),
        ("podman, cgroupfs", "/libpod_parent/libpod-ID", "", true),
        ("podman monitor", "/machine.slice/libpod-conmon-ID.scope", "libpod-conmon-ID.scope", false),
        ("podman quadlet", "/system.slice/web.service/libpod-payload-ID", "web.service", true),
        ("nerdctl", "/system.slice/nerdctl-ID.scope", "nerdctl-ID.scope", true),
        ("ctr", "/default/ID", "", true),
        (
            "containerd in k8s, systemd",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1a2b_3c.slice/cri-containerd-ID.scope",
            "cri-containerd-ID.scope",
            true,
        ),
        ("containerd in k8s, cgroupfs", "/kubepods/burstable/pod0f1e-22/ID", "", true),
        ("k8s besteffort", "/kubepods/besteffort/pod7a9d6b1c-1f5e-4c53-8a39-b4a1b0f6f9d1/ID", "", true),
        ("k8s guaranteed", "/kubepods.slice/kubepods-pod11.slice/crio-ID.scope", "crio-ID.scope", true),
        (
            "containerd, cgroupfs name under systemd",
            "/system.slice/containerd.service/kubepods-besteffort-podaa.slice:cri-containerd:ID",
            "containerd.service",
            true,
        ),
        (
            "cri-o",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod22.slice/crio-ID.scope/container",
            "crio-ID.scope",
            true,
        ),
        ("cri-o monitor", "/kubepods.slice/kubepods-pod22.slice/crio-conmon-ID.scope", "crio-conmon-ID.scope", false),
        (
            "cri-dockerd",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod33.slice/docker-ID.scope",
            "docker-ID.scope",
            true,
        ),
        ("ECS", "/ecs/7b3f0a5e8e0f4f4d9e3b/ID", "", true),
        ("service", "/system.slice/nginx.service", "nginx.service", false),
        ("instance", "/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", false),
        ("delegated service", "/system.slice/app.service/worker/3", "app.service", false),
        ("login session", "/user.slice/user-1000.slice/session-3.scope", "session-3.scope", false),
        ("user unit", "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service", "web.service", false),
        (
            "desktop application",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-4242.scope",
            "app-gnome-firefox-4242.scope",
            false,
        ),
        ("user manager", "/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service", false),
        ("pid 1", "/init.scope", "init.scope", false),
        (
            "transient",
            "/system.slice/run-r0123456789abcdef0123456789abcdef.service",
            "run-r0123456789abcdef0123456789abcdef.service",
            false,
        ),
        (
            "nspawn",
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
            "nginx.service",
            false,
        ),
        ("LXC 4", "/lxc.payload.web/system.slice/nginx.service", "nginx.service", false),
        ("LXC 3", "/lxc/web", "", false),
        ("LXC monitor", "/lxc.monitor.web", "", false),
        ("escaped", "/system.slice/_cgroup.service", "cgroup.service", false),
        ("zombie", "/system.slice/gone.service (deleted)", "gone.service", false),
        ("seen from another cgroup namespace", "/../../system.slice/docker-ID.scope", "docker-ID.scope", true),
        ("root", "/", "", false),
        ("nothing", "", "", false),
        ("a name that is only the suffix", "/.service/.scope", "", false),
        ("63 digits", "/docker/f2a9c0d4b1e58677f00aa11bb22cc33dd44ee55ff66007788990011223344ab", "", false),
        ("capital digits", "/docker/3F2A9C0D4B1E58677F00AA11BB22CC33DD44EE55FF66007788990011223344AB", "", false),
    ];
    for (what, path, unit, contained) in table {
        let path = path.replace("ID", ID).replace("OUTER", OUTER);
        let expected = Place {
            unit: unit.replace("ID", ID),
            container_id: if *contained { ID.to_owned() } else { String::new() },
        };
        assert_eq!(place_of_path(path.as_bytes()), expected, "{what}: {path}");
    }
}

#[test]
fn unified_and_hybrid_tables() {
    assert_eq!(place(b"0::/system.slice/nginx.service\n").unit, "nginx.service");

    let hybrid = format!(
        "12:pids:/docker/{ID}\n11:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n"
    );
    let found = place(hybrid.as_bytes());
    assert_eq!((found.unit.as_str(), found.container_id.as_str()), ("containerd.service", ID));

    let v1 = b"9:name=systemd:/user.slice/user-0.slice/session-1.scope\n8:pids:/other.service\n0::/\n";
    assert_eq!(place(v1).unit, "session-1.scope");
    // Only controllers of version 1: no unit is taken from them, a container is.
    let only = format!("4:memory:/jobs/run.service/{ID}\n");
    assert_eq!(place(only.as_bytes()), Place { unit: String::new(), container_id: ID.to_owned() });
}

#[test]
fn any_bytes_are_taken() {
    assert_eq!(place(b""), Place::default());
    assert_eq!(place(b"::\n:\n\n0::\xff\xfe/\xc3\x28.service"), Place::default());
    assert_eq!(place(b"0::/a:b.service/c:d"), Place { unit: "a:b.service".into(), container_id: String::new() });
}

#[test]
fn a_cgroup_is_found_by_its_identifier() {
    let Ok(root) = crate::probe::cgroup::open_root() else { return eprintln!("skipped: no cgroup v2 root here") };
    let Some(path) = root.path() else { return eprintln!("skipped: the root has no path here") };
    let child = path.join(format!("tapstack-test-{}.scope", std::process::id()));
    if let Err(error) = std::fs::create_dir(&child) {
        return eprintln!("skipped: {error}");
    }
    let id = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&child).unwrap());
    let names = Names::new(root.try_clone().unwrap()).unwrap();
    let found = names.place(id);
    let top = names.place(1);
    std::fs::remove_dir(&child).unwrap();
    assert_eq!(found.unwrap().unit, child.file_name().unwrap().to_str().unwrap());
    assert_eq!(top, Some(Place::default()));
    assert_eq!(names.place(id), None);
}
