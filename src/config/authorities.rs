//! Certificate authorities of an operator's own, read from a PEM file (`providers.NAME.ca`).

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::Path;

/// Reads the certificates of a PEM file.
///
/// # Errors
/// A sentence for the operator: the file cannot be read, or holds no certificate.
pub fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let pem = std::fs::read(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{shown} is not well-formed PEM; wanted: certificates in PEM form"))?;
    if certificates.is_empty() {
        return Err(format!(
            "{shown} holds no certificate; wanted: one or more in PEM form (BEGIN CERTIFICATE)"
        ));
    }
    Ok(certificates)
}
