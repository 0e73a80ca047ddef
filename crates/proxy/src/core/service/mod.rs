//! Service routes: which instance answers a request, what is repeated, and who is left out.
