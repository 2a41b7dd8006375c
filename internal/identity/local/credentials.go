package local

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // what RFC 6238 and the authenticator apps use
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/id"
	"kilonova/internal/identity"
	"kilonova/internal/identity/password"
)

// EC2 keys are credentials of type ec2, TOTP seeds of type totp.
const (
	TypeEC2  = "ec2"
	TypeTOTP = "totp"
)

// EC2Blob is the blob of an EC2 credential.
type EC2Blob struct {
	Access    string `json:"access"`
	Secret    string `json:"secret"`
	TrustID   string `json:"trust_id,omitempty"`
	AppCredID string `json:"app_cred_id,omitempty"`
}

// EC2CredentialID is the id of the EC2 credential with an access key: its SHA-256 digest.
func EC2CredentialID(access string) string {
	sum := sha256.Sum256([]byte(access))
	return hex.EncodeToString(sum[:])
}

// SealBlob encrypts a credential's blob for the database.
func (s *Service) SealBlob(c *identity.Credential) error {
	sealed, err := s.sealing.Seal([]byte(c.Blob))
	c.Blob = sealed
	return err
}

// OpenBlob decrypts a credential's blob.
func (s *Service) OpenBlob(c *identity.Credential) error {
	b := s.sealing.Open(c.Blob)
	if b == nil {
		return fmt.Errorf("credential %s cannot be decrypted with the keys at hand", c.ID)
	}
	c.Blob = string(b)
	return nil
}

// CreateEC2 makes a pair of EC2 keys for a user in a project.
func (s *Service) CreateEC2(ctx context.Context, user, project string) (*identity.Credential, *EC2Blob, error) {
	if _, err := s.Users.Get(ctx, user); err != nil {
		return nil, nil, err
	}
	if _, err := s.Projects.Get(ctx, project); err != nil {
		return nil, nil, err
	}
	blob := &EC2Blob{Access: id.Hex(), Secret: id.Hex()}
	text, err := json.Marshal(blob)
	if err != nil {
		return nil, nil, fmt.Errorf("encode EC2 keys: %w", err)
	}
	c := &identity.Credential{ID: EC2CredentialID(blob.Access), UserID: user, ProjectID: project, Type: TypeEC2, Blob: string(text)}
	if err := s.SealBlob(c); err != nil {
		return nil, nil, err
	}
	return c, blob, s.Credentials.Create(ctx, c)
}

// The time step of passcodes, and how many steps back are accepted.
const (
	totpStep = 30 * time.Second
	totpBack = 1
)

func (s *Service) byPasscode(ctx context.Context, sel identity.Selector, passcode string) (*identity.User, error) {
	u, err := s.findUser(ctx, sel)
	if err != nil {
		return nil, err
	}
	if u == nil {
		return nil, refusedFor("there is no such user")
	}
	return u, s.guarded(ctx, u, "passcode", func() (bool, error) { return s.checkPasscode(ctx, u.ID, passcode) })
}

func (s *Service) checkPasscode(ctx context.Context, user, passcode string) (bool, error) {
	seeds, err := s.Credentials.List(ctx, Filter{Field: "user_id", Value: user}, Filter{Field: "type", Value: TypeTOTP})
	if err != nil {
		return false, err
	}
	good := false
	for i := range seeds {
		if err := s.OpenBlob(&seeds[i]); err != nil {
			return false, err
		}
		for back := range totpBack + 1 {
			code, err := Passcode(seeds[i].Blob, clock.Now().Add(-time.Duration(back)*totpStep))
			good = good || err == nil && subtle.ConstantTimeCompare([]byte(code), []byte(passcode)) == 1
		}
	}
	return good, nil
}

// Passcode is the six-digit code of a base32 seed at a time (RFC 6238).
func Passcode(seed string, at time.Time) (string, error) {
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(strings.TrimRight(strings.TrimSpace(seed), "=")))
	if err != nil {
		return "", fmt.Errorf("passcode seed: %w", err)
	}
	var step [8]byte
	binary.BigEndian.PutUint64(step[:], uint64(at.Unix()/int64(totpStep/time.Second)))
	h := hmac.New(sha1.New, key)
	h.Write(step[:])
	sum := h.Sum(nil)
	from := sum[len(sum)-1] & 15
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[from:])&0x7fffffff)%1000000), nil
}

// CreateAppCred makes an application credential in the project of the token, with the given roles (all of the token's when none are
// named). It gives the secret, which is kept only as a hash: one is made when secret is "".
func (s *Service) CreateAppCred(ctx context.Context, a *identity.AppCred, roles []identity.Ref, rules []identity.AccessRule, tok *identity.Token, secret string) (string, []identity.AccessRule, error) {
	if tok.Project == nil {
		return "", nil, fault.New(fault.Invalid, "An application credential needs a token for a project.")
	}
	a.ID, a.UserID, a.ProjectID = id.Hex(), tok.User.ID, tok.Project.ID
	ids, err := pickRoles(tok, roles)
	if err != nil {
		return "", nil, err
	}
	a.RoleIDs = ids
	if secret == "" {
		secret = id.Secret(43)
		a.SecretHash = password.Digest(secret)
	} else if a.SecretHash, err = s.HashPassword(ctx, secret); err != nil {
		return "", nil, err
	}
	var kept []identity.AccessRule
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		if kept, err = s.keepRules(ctx, tx, a.UserID, rules); err != nil {
			return err
		}
		a.RuleIDs = nil // the transaction may run more than once
		for _, r := range kept {
			a.RuleIDs = append(a.RuleIDs, r.ID)
		}
		return s.AppCreds.create(ctx, tx, a)
	})
	return secret, kept, err
}

// pickRoles gives the ids of the roles named by id or name, each of which the token must hold; all of the token's when none is named.
func pickRoles(tok *identity.Token, named []identity.Ref) ([]string, error) {
	var out []string
	for _, r := range tok.Roles {
		if len(named) == 0 {
			out = append(out, r.ID)
		}
	}
	for _, n := range named {
		found := ""
		for _, r := range tok.Roles {
			if r.ID == n.ID || n.ID == "" && r.Name == n.Name {
				found = r.ID
			}
		}
		if found == "" {
			return nil, fault.New(fault.Invalid, "Role %s is not one that the token holds.", n.ID+n.Name)
		}
		out = append(out, found)
	}
	return out, nil
}

// keepRules finds or makes the access rules.
func (s *Service) keepRules(ctx context.Context, tx *db.Tx, user string, rules []identity.AccessRule) ([]identity.AccessRule, error) {
	have, err := s.AccessRules.query(ctx, tx, "WHERE user_id = ?", user)
	if err != nil {
		return nil, err
	}
	var out []identity.AccessRule
	for _, want := range rules {
		found := false
		for _, h := range have {
			if want.ID != "" && h.ID == want.ID || want.ID == "" && h.Service == want.Service && h.Method == want.Method && h.Path == want.Path {
				out, found = append(out, h), true
			}
		}
		if found {
			continue
		}
		if want.ID != "" {
			return nil, fault.New(fault.NotFound, "Could not find access rule: %s.", want.ID)
		}
		want.ID, want.UserID = strings.ReplaceAll(id.Ordered(), "-", ""), user // lists are by id: in the order of making
		if err := s.AccessRules.create(ctx, tx, &want); err != nil {
			return nil, err
		}
		have, out = append(have, want), append(out, want)
	}
	return out, nil
}
