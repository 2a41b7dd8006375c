// Package auth holds who is asking: the verified content of a token, as every REST service sees it.
package auth

import (
	"context"
	"slices"
	"time"
)

// Caller is the verified content of a token together with the ids of the request it came with.
type Caller struct {
	UserID, UserName, UserDomainID, UserDomainName             string
	ProjectID, ProjectName, ProjectDomainID, ProjectDomainName string
	DomainID, DomainName                                       string // domain scope
	System                                                     bool   // system scope ("all")
	Roles                                                      []string
	AccessRules                                                []AccessRule // of the token's application credential; nil: it has none. See May
	ExpiresAt                                                  time.Time
	Token                                                      string // the token itself; never logged
	RequestID                                                  string // req-<uuid> of this request
	GlobalRequestID                                            string // X-Openstack-Request-Id of the caller, when it is well formed
}

// HasRole tells whether the caller has the role. Implied roles (admin > manager > member > reader) are already in Roles.
func (c *Caller) HasRole(role string) bool { return c != nil && slices.Contains(c.Roles, role) }

// IsAdmin tells whether the caller has the role admin.
func (c *Caller) IsAdmin() bool { return c.HasRole("admin") }

// Authenticator verifies tokens.
type Authenticator interface {
	// Authenticate gives the content of a token. It fails with fault.Unauthorized for a token that is
	// malformed, expired, revoked or whose user or project is gone or disabled. Who serves the caller holds each request
	// against his access rules with Caller.May; package httpapi does that for every service.
	Authenticate(ctx context.Context, token string) (*Caller, error)
}

// Internal is the caller that the services use among themselves inside one deployment: admin and service.
func Internal(requestID string) *Caller {
	return &Caller{UserID: "kilonova", UserName: "kilonova", ProjectID: "service", ProjectName: "service", System: true,
		Roles: []string{"admin", "manager", "member", "reader", "service"}, RequestID: requestID}
}
