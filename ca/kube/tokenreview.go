package kube

import (
	"context"
	"errors"
	"fmt"
	"io"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"citadel/ca/authn"
)

// What a review says of the pod that a token is bound to.
const (
	podNameExtra = "authentication.kubernetes.io/pod-name"
	podUIDExtra  = "authentication.kubernetes.io/pod-uid"
)

// Review has the API server review tokens.
func Review(client kubernetes.Interface) authn.Review {
	return func(ctx context.Context, token string, audiences []string) (authn.Reviewed, error) {
		review, err := client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}, metav1.CreateOptions{})
		if apierrors.IsForbidden(err) {
			return authn.Reviewed{}, fmt.Errorf("%w: %w", authn.ErrMayNotReview, err)
		}
		if err != nil {
			return authn.Reviewed{}, err
		}
		user := review.Status.User
		podName, podUID := user.Extra[podNameExtra], user.Extra[podUIDExtra]
		if len(podName) > 1 || len(podUID) > 1 {
			return authn.Reviewed{}, errors.New("the review names more than one pod")
		}
		reviewed := authn.Reviewed{Authenticated: review.Status.Authenticated, User: user.Username, UID: user.UID,
			Groups: user.Groups, Audiences: review.Status.Audiences}
		if len(podName) == 1 {
			reviewed.PodName = podName[0]
		}
		if len(podUID) == 1 {
			reviewed.PodUID = podUID[0]
		}
		return reviewed, nil
	}
}

// Where the API server publishes who issues its tokens, and the keys.
const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/openid/v1/jwks"
)

// TokenKeys reads the keys of service-account tokens from the API server
// itself: the issuer's name may be a URL that nobody can reach from here.
func TokenKeys(client kubernetes.Interface) authn.Fetch {
	return func(ctx context.Context) (string, []byte, error) {
		document, err := published(ctx, client, discoveryPath, "application/json")
		if err != nil {
			return "", nil, err
		}
		issuer, _, err := authn.ParseDiscovery(document)
		if err != nil {
			return "", nil, fmt.Errorf("GET %s of the API server: %w", discoveryPath, err)
		}
		keys, err := published(ctx, client, keysPath, "application/jwk-set+json")
		return issuer, keys, err
	}
}

// published reads a document that may be read by every service account.
func published(ctx context.Context, client kubernetes.Interface, path, mediaType string) ([]byte, error) {
	body, err := client.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", mediaType).Stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("GET %s of the API server: %w", path, err)
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, authn.MaxPublished+1))
	if err == nil && len(text) > authn.MaxPublished {
		err = fmt.Errorf("the answer is larger than %d bytes", authn.MaxPublished)
	}
	if err != nil {
		return nil, fmt.Errorf("GET %s of the API server: %w", path, err)
	}
	return text, nil
}
