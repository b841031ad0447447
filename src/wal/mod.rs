//! What PostgreSQL calls its WAL files and what stands in them: names, positions and page headers.
//! Pure computation, no I/O.
