// Package policy answers, for any client and any port of a service, what the
// server side accepts, what the client side originates, whether the two can
// talk, and which object decided each side.
//
// Objects are parsed strictly at the edge (Decode, DecodeMeshConfig), held in an
// immutable Snapshot that is updated in proportion to what a change touches
// (New, Snapshot.With, Snapshot.Without), and asked (Snapshot.Resolve). Reasons
// are made only when somebody wants them (Decision.Explain). Validate judges one
// object by itself, with the words that people know from their meshes.
//
// Three generations of mTLS policy are understood, one release of each: Legacy
// (service annotations and mesh config), V1Alpha1 (MeshPolicy, Policy and
// DestinationRule, as of release 1.4) and V1 (PeerAuthentication and
// DestinationRule, as of today). Which one holds is an input; Auto picks by what
// exists.
//
// The package does no I/O, reads no clock and logs nothing. It never guesses in
// favour of plain text: zero values accept and originate nothing, an object that
// is broken is set aside, and a host that nobody declares is not reachable.
package policy
