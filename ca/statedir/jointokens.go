package statedir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"citadel/ca/authn"
)

// JoinTokens keeps join tokens in files, one each, called by the token's ID.
// However many processes change them, each use counts once.
type JoinTokens struct{ dir *Dir }

// JoinTokens are those of the directory.
func (d *Dir) JoinTokens() JoinTokens { return JoinTokens{d} }

// tokenID is the form of an ID, and so of a file's name: nothing else is looked
// for.
var tokenID = regexp.MustCompile(`^[0-9a-f]{10}$`)

const tokenExt = ".json"

// Use is of authn.JoinTokens.
func (j JoinTokens) Use(ctx context.Context, id string, use func(*authn.JoinToken) (bool, error)) error {
	return j.dir.edit(ctx, func() error {
		token, err := j.read(id)
		if err != nil {
			return err
		}
		changed, err := use(&token)
		if err != nil || !changed {
			return err
		}
		return j.write(token)
	})
}

// Create stores a new token.
func (j JoinTokens) Create(ctx context.Context, token authn.JoinToken) error {
	if !tokenID.MatchString(token.ID) {
		return fmt.Errorf("%q is no ID of a join token", token.ID)
	}
	return j.dir.edit(ctx, func() error {
		switch there, err := j.dir.tokens.there(token.ID + tokenExt); {
		case err != nil:
			return err
		case there:
			return fmt.Errorf("there is a join token %s in %s already", token.ID, j.dir.tokens.path)
		}
		return j.write(token)
	})
}

// List returns every token, by ID, and an error for those that are damaged.
func (j JoinTokens) List(context.Context) ([]authn.JoinToken, error) {
	entries, err := j.dir.tokens.list()
	if err != nil {
		return nil, err
	}
	var tokens []authn.JoinToken
	var damaged []error
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") { // one that is being written
			continue
		}
		id, isToken := strings.CutSuffix(entry.Name(), tokenExt)
		if !isToken || !tokenID.MatchString(id) {
			damaged = append(damaged, fmt.Errorf("%s is no join token: move it away", j.dir.tokens.name(entry.Name())))
			continue
		}
		token, err := j.read(id)
		switch {
		case errors.Is(err, authn.ErrNoJoinToken): // revoked just now
		case err != nil:
			damaged = append(damaged, err)
		default:
			tokens = append(tokens, token)
		}
	}
	slices.SortFunc(tokens, func(a, b authn.JoinToken) int { return strings.Compare(a.ID, b.ID) })
	return tokens, errors.Join(damaged...)
}

// Revoke deletes a token: nobody joins by it any more. It returns
// authn.ErrNoJoinToken when there is none.
func (j JoinTokens) Revoke(ctx context.Context, id string) error {
	if !tokenID.MatchString(id) {
		return authn.ErrNoJoinToken
	}
	return j.dir.edit(ctx, func() error {
		switch there, err := j.dir.tokens.there(id + tokenExt); {
		case err != nil:
			return err
		case !there:
			return authn.ErrNoJoinToken
		}
		if err := j.dir.tokens.remove(id + tokenExt); err != nil {
			return err
		}
		return j.dir.tokens.sync()
	})
}

// Sweep deletes the tokens that expired more than keep ago. Until then they
// tell those that try them why they fail.
func (j JoinTokens) Sweep(ctx context.Context, now time.Time, keep time.Duration) error {
	tokens, err := j.List(ctx)
	failed := []error{err}
	for _, token := range tokens {
		if now.Sub(token.Expires) <= keep {
			continue
		}
		if err := j.Revoke(ctx, token.ID); err != nil && !errors.Is(err, authn.ErrNoJoinToken) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (j JoinTokens) read(id string) (authn.JoinToken, error) {
	if !tokenID.MatchString(id) {
		return authn.JoinToken{}, authn.ErrNoJoinToken
	}
	text, _, err := j.dir.tokens.read(id + tokenExt)
	if errors.Is(err, fs.ErrNotExist) {
		return authn.JoinToken{}, authn.ErrNoJoinToken
	}
	if err != nil {
		return authn.JoinToken{}, err
	}
	token, err := decodeToken(id, text)
	if err != nil {
		return authn.JoinToken{}, fmt.Errorf("no join token is in %s, whose name says so: delete it: %w", j.dir.tokens.name(id+tokenExt), err)
	}
	return token, nil
}

func (j JoinTokens) write(token authn.JoinToken) error {
	text, err := json.Marshal(token)
	if err != nil {
		return fmt.Errorf("encode join token %s: %w", token.ID, err)
	}
	return j.dir.tokens.replace(token.ID+tokenExt, append(text, '\n'))
}

// decodeToken insists that a text is the token of an ID.
func decodeToken(id string, text []byte) (authn.JoinToken, error) {
	var token authn.JoinToken
	if err := json.Unmarshal(text, &token); err != nil {
		return authn.JoinToken{}, err
	}
	if token.ID != id {
		return authn.JoinToken{}, fmt.Errorf("it is of the ID %.20q", token.ID)
	}
	return token, nil
}
