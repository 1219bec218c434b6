//! A real nginx in front, configured well or badly.

use crate::support::until;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running nginx.
pub struct Nginx {
    /// Where it listens.
    pub port: u16,
    child: Child,
    _folder: TempDir,
}

impl Nginx {
    /// On that port, in front of another, with these lines in its only `location`.
    pub async fn on(port: u16, behind: u16, lines: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f;\n  \
             uwsgi_temp_path u; scgi_temp_path s;\n  \
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{behind}; {lines} }} }}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let child = Command::new("nginx")
            .env(
                "PATH",
                format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()),
            )
            .args([
                "-p",
                folder.path().to_str().unwrap(),
                "-c",
                "nginx.conf",
                "-e",
                "stderr",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx; tests/run installs it");
        until(10, "nginx", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        Self {
            port,
            child,
            _folder: folder,
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
