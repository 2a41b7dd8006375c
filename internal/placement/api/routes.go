package api

import "kilonova/internal/httpapi"

// routes is the table of the API.
func (a *api) routes() []httpapi.Route {
	const (
		providers = "/resource_providers"
		provider  = providers + "/{uuid}"
		classes   = "/resource_classes"
		traits    = "/traits"
	)
	return []httpapi.Route{
		{Method: "GET", Path: "/", Public: true, AnyAccept: true, Handle: a.root},

		{Method: "GET", Path: classes, Since: v(2), Rule: ruleClasses + "list", Handle: a.listClasses},
		{Method: "POST", Path: classes, Since: v(2), Rule: ruleClasses + "create", Schema: a.schema("class"), Handle: a.createClass},
		{Method: "GET", Path: classes + "/{name}", Since: v(2), Rule: ruleClasses + "show", Handle: a.showClass},
		{Method: "PUT", Path: classes + "/{name}", Since: v(2), Until: v(6), Rule: ruleClasses + "update", Schema: a.schema("class"), Handle: a.renameClass},
		{Method: "PUT", Path: classes + "/{name}", Since: v(7), Rule: ruleClasses + "update", Body: httpapi.NoBody, Handle: a.ensureClass},
		{Method: "DELETE", Path: classes + "/{name}", Since: v(2), Rule: ruleClasses + "delete", Handle: a.deleteClass},

		{Method: "GET", Path: providers, Rule: ruleProviders + "list", Query: a.newestOf("query_providers"), Handle: a.listProviders},
		{Method: "POST", Path: providers, Until: v(13), Rule: ruleProviders + "create", Schema: a.schema("provider_new_1.0"), Handle: a.createProvider},
		{Method: "POST", Path: providers, Since: v(14), Rule: ruleProviders + "create", Schema: a.schema("provider_new_1.14"), Handle: a.createProvider},
		{Method: "GET", Path: provider, Rule: ruleProviders + "show", Handle: a.showProvider},
		{Method: "PUT", Path: provider, Until: v(13), Rule: ruleProviders + "update", Schema: a.schema("provider_1.0"), Handle: a.updateProvider},
		{Method: "PUT", Path: provider, Since: v(14), Rule: ruleProviders + "update", Schema: a.schema("provider_1.14"), Handle: a.updateProvider},
		{Method: "DELETE", Path: provider, Rule: ruleProviders + "delete", Handle: a.deleteProvider},

		{Method: "GET", Path: provider + "/inventories", Rule: ruleInventories + "list", Handle: a.listInventories},
		{Method: "POST", Path: provider + "/inventories", Rule: ruleInventories + "create", Schema: a.schema("inventory_new"), Handle: a.addInventory},
		{Method: "PUT", Path: provider + "/inventories", Rule: ruleInventories + "update", Schema: a.schema("inventories"), Handle: a.setInventories},
		{Method: "DELETE", Path: provider + "/inventories", Until: v(4), Rule: ruleInventories + "delete", Handle: a.noDeleteInventories},
		{Method: "DELETE", Path: provider + "/inventories", Since: v(5), Rule: ruleInventories + "delete", Handle: a.deleteInventories},
		{Method: "GET", Path: provider + "/inventories/{class}", Rule: ruleInventories + "show", Handle: a.showInventory},
		{Method: "PUT", Path: provider + "/inventories/{class}", Rule: ruleInventories + "update", Schema: a.schema("inventory"), Handle: a.setInventory},
		{Method: "DELETE", Path: provider + "/inventories/{class}", Rule: ruleInventories + "delete", Handle: a.deleteInventory},

		{Method: "GET", Path: provider + "/usages", Rule: ruleProviders + "usages", Handle: a.providerUsages},
		{Method: "GET", Path: provider + "/aggregates", Since: v(1), Rule: ruleAggregates + "list", Handle: a.listAggregates},
		{Method: "PUT", Path: provider + "/aggregates", Since: v(1), Rule: ruleAggregates + "update", Body: httpapi.AnyJSON, Handle: a.setAggregates},
		{Method: "GET", Path: provider + "/allocations", Rule: ruleProviders + "allocations:list", Handle: a.providerAllocations},
		{Method: "GET", Path: provider + "/traits", Since: v(6), Rule: ruleProviderTraits + "list", Handle: a.providerTraits},
		{Method: "PUT", Path: provider + "/traits", Since: v(6), Rule: ruleProviderTraits + "update", Schema: a.schema("traits"), Handle: a.setTraits},
		{Method: "DELETE", Path: provider + "/traits", Since: v(6), Rule: ruleProviderTraits + "delete", Handle: a.deleteTraits},

		{Method: "GET", Path: traits, Since: v(6), Rule: ruleTraits + "list", Query: a.schema("query_traits"), Handle: a.listTraits},
		{Method: "GET", Path: traits + "/{name}", Since: v(6), Rule: ruleTraits + "show", AnyAccept: true, Handle: a.showTrait},
		{Method: "PUT", Path: traits + "/{name}", Since: v(6), Rule: ruleTraits + "update", Body: httpapi.NoBody, Handle: a.createTrait},
		{Method: "DELETE", Path: traits + "/{name}", Since: v(6), Rule: ruleTraits + "delete", Handle: a.deleteTrait},

		{Method: "POST", Path: "/allocations", Since: v(13), Rule: ruleAllocations + "manage", Schema: a.newestOf("allocations"), Handle: a.manageAllocations},
		{Method: "GET", Path: "/allocations/{consumer}", Rule: ruleAllocations + "list", Handle: a.consumerAllocations},
		{Method: "PUT", Path: "/allocations/{consumer}", Rule: ruleAllocations + "update", Schema: a.newestOf("allocation"), Handle: a.setAllocations},
		{Method: "DELETE", Path: "/allocations/{consumer}", Rule: ruleAllocations + "delete", Handle: a.deleteAllocations},

		{Method: "GET", Path: "/allocation_candidates", Since: v(10), Rule: ruleCandidates + "list", Query: a.newestOf("query_candidates"), Handle: a.candidates},
		{Method: "GET", Path: "/usages", Since: v(9), Query: a.newestOf("query_usages"), Handle: a.usages}, // asks policy about the project of the query
		{Method: "POST", Path: "/reshaper", Since: v(30), Rule: ruleReshape, Schema: a.newestOf("reshaper"), Handle: a.reshape},
	}
}
