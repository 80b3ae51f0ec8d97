local os = require("os")
obj.spec.operation = "SwitchBack"
obj.spec.operationToken = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
