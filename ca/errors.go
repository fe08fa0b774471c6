package ca

// Class says what kind of failure an Error is. The first four bear the names
// that the ancestors used in metrics and messages.
type Class string

// The classes of failure.
const (
	CANotReady      Class = "CA_NOT_READY"    // there is nothing to sign with
	CSRError        Class = "CSR_ERROR"       // the request is malformed, weak or asks for too much
	TTLError        Class = "TTL_ERROR"       // the life asked for is above the maximum
	CertGenError    Class = "CERT_GEN_ERROR"  // the certificate cannot be made
	Unauthenticated Class = "UNAUTHENTICATED" // nobody vouched for the caller
	Denied          Class = "DENIED"          // the caller is known and may not have this
)

// Error is why a certificate was not issued.
type Error struct {
	Class  Class
	Reason string
	Cause  error // may be nil
}

// Error returns the reason and its cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Reason + ": " + e.Cause.Error()
	}
	return e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }
