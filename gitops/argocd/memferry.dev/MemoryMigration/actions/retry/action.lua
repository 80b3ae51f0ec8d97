local os = require("os")
obj.spec.retryToken = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
