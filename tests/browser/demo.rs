//! `cloakroom demo` as somebody meets it who tries the product for the first time.
