//! What is under `deploy/`, exercised as far as that goes without a container engine and a cluster: the image's own build
//! steps and the files that come of them, the manifests as kustomize renders them, the Compose file, the systemd unit.
//!
//! Their formats are judged by the field's own tools (kubectl, Kubernetes' schemas, the Compose specification's,
//! systemd-analyze); that the parts fit each other is judged here; and every config in them is checked and run by the
//! real binary in a container of [`support::container`], with the files where the manifest puts them.

#![expect(
    clippy::disallowed_methods,
    reason = "the suite is not the product: it reads its own environment"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod compose;
mod image;
mod kubernetes;
mod support;
mod systemd;
