"""The vendor's two services, CVM and COS, over HTTP; knows no job."""
