package api

import (
	"encoding/json"
	"errors"

	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/identity"
	"kilonova/internal/identity/local"
)

// ec2Document is an EC2 credential below /v3/users/{id}/credentials/OS-EC2.
func (a *api) ec2Document(r *httpapi.Request, c *identity.Credential) (document, error) {
	open := *c
	if err := a.s.OpenBlob(&open); err != nil {
		return nil, err
	}
	var b local.EC2Blob
	if err := json.Unmarshal([]byte(open.Blob), &b); err != nil {
		return nil, fault.Wrap(err, fault.Internal, "The credential's blob is malformed.")
	}
	var trust any
	if b.TrustID != "" {
		trust = b.TrustID
	}
	return document{"access": b.Access, "secret": b.Secret, "user_id": c.UserID, "tenant_id": c.ProjectID, "trust_id": trust,
		"links": document{"self": r.Base + "/v3/users/" + c.UserID + "/credentials/OS-EC2/" + b.Access}}, nil
}

// createEC2 answers POST /v3/users/{id}/credentials/OS-EC2.
func (a *api) createEC2(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := ownPath(r, "identity:ec2_credentials"); err != nil {
		return nil, err
	}
	var b struct {
		TenantID string `json:"tenant_id"`
	}
	if err := r.Decode(&b); err != nil {
		return nil, err
	}
	// The keys act in that project: whoever is no administrator must be able to act there itself.
	if !r.Caller.IsAdmin() && b.TenantID != r.Caller.ProjectID {
		mine, err := a.s.UserProjects(r.Context(), r.Path("id"))
		if err != nil {
			return nil, err
		}
		if len(pick(mine, []string{b.TenantID}, func(p identity.Project) string { return p.ID })) == 0 {
			return nil, fault.New(fault.Forbidden, "You have no role on project %s.", b.TenantID)
		}
	}
	c, _, err := a.s.CreateEC2(r.Context(), r.Path("id"), b.TenantID)
	if err != nil {
		return nil, err
	}
	d, err := a.ec2Document(r, c)
	if err != nil {
		return nil, err
	}
	return httpapi.Created(document{"credential": d}), nil
}

func (a *api) listEC2(r *httpapi.Request) (*httpapi.Reply, error) {
	if err := ownPath(r, "identity:ec2_credentials"); err != nil {
		return nil, err
	}
	list, err := a.s.Credentials.List(r.Context(), local.Filter{Field: "user_id", Value: r.Path("id")}, local.Filter{Field: "type", Value: local.TypeEC2})
	if err != nil {
		return nil, err
	}
	docs := make([]document, len(list))
	for i := range list {
		if docs[i], err = a.ec2Document(r, &list[i]); err != nil {
			return nil, err
		}
	}
	return httpapi.OK(document{"credentials": docs, "links": listLinks(r)}), nil
}

// ec2 gives the EC2 credential of the path.
func (a *api) ec2(r *httpapi.Request) (*identity.Credential, error) {
	if err := ownPath(r, "identity:ec2_credentials"); err != nil {
		return nil, err
	}
	c, err := a.s.Credentials.Get(r.Context(), local.EC2CredentialID(r.Path("access")))
	if err != nil && !errors.Is(err, fault.NotFound) {
		return nil, err
	}
	if err != nil || c.UserID != r.Path("id") || c.Type != local.TypeEC2 {
		return nil, fault.New(fault.NotFound, "Could not find credential: %s.", r.Path("access"))
	}
	return c, nil
}

func (a *api) showEC2(r *httpapi.Request) (*httpapi.Reply, error) {
	c, err := a.ec2(r)
	if err != nil {
		return nil, err
	}
	d, err := a.ec2Document(r, c)
	if err != nil {
		return nil, err
	}
	return httpapi.OK(document{"credential": d}), nil
}

func (a *api) deleteEC2(r *httpapi.Request) (*httpapi.Reply, error) {
	c, err := a.ec2(r)
	if err != nil {
		return nil, err
	}
	if err := a.s.Credentials.Delete(r.Context(), c.ID); err != nil {
		return nil, err
	}
	return httpapi.NoContent(), nil
}
