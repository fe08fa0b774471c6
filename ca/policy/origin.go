package policy

import "strconv"

// Origin is what decided one side of a connection: an object, or a part of one,
// or one of the reasons that are no objects. Origins compare with ==. The zero
// value is unknown.
type Origin struct {
	Ref    Ref    // for the reasons that are objects
	Subset string // of a DestinationRule
	Port   int32  // of an annotation, portLevelMtls or portLevelSettings; 0 for the object as a whole
	Reason Reason // for all others
}

// Reason is what decides where no object does.
type Reason uint8

// The reasons. ByObject says that Origin.Ref decided.
const (
	Unknown        Reason = iota // nobody declares the host, or the endpoint
	ByObject                     // an object
	ByDefault                    // nothing said anything
	NoSidecar                    // this side has no proxy
	External                     // the server is outside of the mesh
	Headless                     // legacy: TCP ports of headless services
	AutoMTLS                     // today's clients go by the server
	ByAuthPolicy                 // mesh config
	ExcludedByMesh               // mesh config
	reasons                      // how many there are
)

var reasonWords = [reasons]string{"unknown", "object", "default", "no-sidecar", "external", "headless", "auto-mtls",
	"MeshConfig/authPolicy", "MeshConfig/mtlsExcludedServices"}

// String is the word that cases use.
func (r Reason) String() string { return word(reasonWords[:], r) }

// String is the form in which cases name what decided.
func (o Origin) String() string {
	if o.Reason != ByObject {
		return o.Reason.String()
	}
	text := o.Ref.String()
	if o.Subset != "" {
		text += "#subset/" + o.Subset
	}
	if o.Port != 0 {
		part := map[Kind]string{KindService: "#" + annotation, KindPeerAuthentication: "#portLevelMtls/", KindDestinationRule: "#portLevelSettings/"}
		text += part[o.Ref.Kind] + strconv.Itoa(int(o.Port))
	}
	return text
}

func by(ref Ref) Origin            { return Origin{Reason: ByObject, Ref: ref} }
func because(reason Reason) Origin { return Origin{Reason: reason} }
