//! The decisions of nodejobs: inputs in, changes and effects out.
